//! The feature `serde`: labels, and nothing but labels.

use exit_classifier::{Cause, Counts};

#[test]
fn a_word_is_written_and_read_as_its_label() {
    for cause in Cause::ALL {
        let text = serde_json::to_string(cause).unwrap();
        assert_eq!(text, format!("\"{cause}\""));
        assert_eq!(serde_json::from_str::<Cause>(&text).unwrap(), *cause);
    }
    let error = serde_json::from_str::<Counts>("\"three\"").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("`three` is no label of Counts"),
        "{error}"
    );
    assert!(serde_json::from_str::<Counts>("3").is_err());
}
