//! Two lanes: mail goes out one at a time, thumbnails two at a time, and neither waits for the other.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::error::Error;

use command_queue::{CommandQueue, LaneConfig, QueueConfig, SubmitOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let queue = CommandQueue::start(QueueConfig::recommended())?;
    queue.configure_lane(
        "thumbnails",
        LaneConfig {
            width: 2,
            ..LaneConfig::serial()
        },
    )?;

    let mails = ["to Ada", "to Grace"].map(|mail| {
        queue.submit("mail", SubmitOptions::foreground(), move |_| {
            format!("sent {mail}")
        })
    });
    let pictures = [1, 2, 3].map(|picture| {
        queue.submit("thumbnails", SubmitOptions::background(), move |task| {
            task.progress(); // Without a sign of life for ten minutes the slot would be taken away.
            format!("made thumbnail {picture}")
        })
    });
    for handle in mails {
        println!("{}", handle.map_err(|refused| refused.reason)?.wait()?);
    }
    for handle in pictures {
        println!("{}", handle.map_err(|refused| refused.reason)?.wait()?);
    }
    for lane in queue.snapshot().lanes {
        println!(
            "lane `{}` finished {} tasks",
            lane.lane, lane.totals.finished
        );
    }
    Ok(())
}
