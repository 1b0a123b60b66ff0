//! What `cargo metadata` says about this workspace, cut down to what the chores ask for.

use std::path::{Path, PathBuf};

use crate::command::{self, Failure};
use crate::json::Json;

/// The workspace: its root folder and its packages.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// One member of the workspace.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The folder that holds the manifest.
    pub(crate) dir: PathBuf,
    /// `false` for `publish = false`.
    pub(crate) published: bool,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
    /// The whole record, for the fields that only one rule reads.
    pub(crate) record: Json,
}

/// One line of a `[dependencies]` table, of whatever kind.
#[derive(Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) requirement: String,
    pub(crate) default_features: bool,
    /// `dev` and `build` dependencies are not part of what a user of the crate builds.
    pub(crate) normal: bool,
}

/// Something that cargo builds from a package.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

impl Target {
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.kind.iter().any(|own| own == kind)
    }
}

impl Package {
    pub(crate) fn has_target(&self, kind: &str, name: &str) -> bool {
        self.targets
            .iter()
            .any(|target| target.is(kind) && target.name == name)
    }

    pub(crate) fn targets_of(&self, kind: &str) -> impl Iterator<Item = &Target> {
        self.targets.iter().filter(move |target| target.is(kind))
    }
}

impl Workspace {
    /// Asks cargo about the workspace that this program was built from. Needs no network.
    pub(crate) fn load() -> Result<Self, Failure> {
        let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = xtask
            .parent()
            .expect("because xtask is a folder of the workspace");
        Self::load_from(root)
    }

    /// Asks cargo about the workspace in `root`.
    pub(crate) fn load_from(root: &Path) -> Result<Self, Failure> {
        let mut cargo = command::cargo(root);
        cargo.args(["metadata", "--no-deps", "--format-version", "1"]);
        let text = command::output(&mut cargo)?;
        let broken =
            |what: &str| Failure::new(format!("`{}` gave no {what}", command::show(&cargo)));
        let json = Json::parse(&text).ok_or_else(|| broken("JSON"))?;
        let target = json.get("target_directory").text();
        let packages = json.get("packages").list().iter().map(Package::read);
        Ok(Self {
            root: root.to_owned(),
            target: PathBuf::from(target.ok_or_else(|| broken("target directory"))?),
            packages: packages
                .collect::<Option<_>>()
                .ok_or_else(|| broken("readable package"))?,
        })
    }

    pub(crate) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    /// Returns the packages that go to the registry.
    pub(crate) fn published(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.published)
    }

    /// Returns the published packages that build no program: the reusable crates.
    pub(crate) fn libraries(&self) -> impl Iterator<Item = &Package> {
        self.published()
            .filter(|package| package.targets_of("bin").next().is_none())
    }
}

impl Package {
    fn read(record: &Json) -> Option<Self> {
        let manifest = Path::new(record.get("manifest_path").text()?);
        let dependencies = record.get("dependencies").list().iter();
        let targets = record.get("targets").list().iter();
        Some(Self {
            name: record.get("name").text()?.to_owned(),
            version: record.get("version").text()?.to_owned(),
            dir: manifest.parent()?.to_owned(),
            published: *record.get("publish") != Json::List(Vec::new()),
            dependencies: dependencies.map(Dependency::read).collect::<Option<_>>()?,
            targets: targets.map(Target::read).collect::<Option<_>>()?,
            record: record.clone(),
        })
    }
}

impl Dependency {
    fn read(record: &Json) -> Option<Self> {
        Some(Self {
            name: record.get("name").text()?.to_owned(),
            requirement: record.get("req").text()?.to_owned(),
            default_features: *record.get("uses_default_features") == Json::Bool(true),
            normal: *record.get("kind") == Json::Null,
        })
    }
}

impl Target {
    fn read(record: &Json) -> Option<Self> {
        Some(Self {
            name: record.get("name").text()?.to_owned(),
            kind: record.get("kind").texts(),
        })
    }
}
