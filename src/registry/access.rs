//! Who may do what with which repository of the platform's registry. Pure.
//!
//! | repository | its owner | administrators, the platform itself | other users | nobody (through the way in for Docker) |
//! | --- | --- | --- | --- | --- |
//! | `zmfsea/...` | pull, push, delete | pull, push, delete | - | - |
//! | `library/...`, and names of one word, which mean the same | - | pull, push, delete | pull | pull |
//! | the list of repositories | - | read | - | - |
//!
//! The owner is the first word of the name, compared as a whole.

use crate::model::image::{LIBRARY, is_repository, owner_of};

/// Scopes of one request at most.
pub const MAX_SCOPES: usize = 32;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Without credentials.
    Nobody,
    /// A user.
    User(String),
    /// An administrator, or the platform itself.
    Administrator(String),
}

impl Who {
    /// The name, empty for nobody.
    pub fn name(&self) -> &str {
        match self {
            Self::Nobody => "",
            Self::User(name) | Self::Administrator(name) => name,
        }
    }
}

/// What is asked for, or granted: a type, a name, and words.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Access {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A repository, or `catalog`.
    pub name: String,
    /// `pull`, `push`, `delete`; `*` for the catalog.
    pub actions: Vec<String>,
}

impl Access {
    /// An access to one repository.
    pub fn repository(name: &str, actions: &[&str]) -> Self {
        Self { kind: "repository".into(), name: name.into(), actions: actions.iter().map(|action| (*action).to_owned()).collect() }
    }

    /// An access to the list of repositories.
    pub fn catalog() -> Self {
        Self { kind: "registry".into(), name: "catalog".into(), actions: vec!["*".into()] }
    }
}

/// Reads `repository:zmfsea/x:pull,push`; several are separated by blanks. What cannot be read asks for nothing.
pub fn scopes(texts: &[String]) -> Vec<Access> {
    let read = |text: &str| {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let actions = actions.split(',').filter(|action| !action.is_empty()).take(8).map(str::to_owned).collect();
        Some(Access { kind: kind.to_owned(), name: name.to_owned(), actions })
    };
    texts.iter().flat_map(|text| text.split(' ')).filter_map(read).take(MAX_SCOPES).collect()
}

/// What `who` gets of what is wanted, as a token server answers: less than was asked for is no error. Entries without anything are left out.
pub fn granted(who: &Who, wanted: &[Access]) -> Vec<Access> {
    let grant = |access: &Access| {
        let allowed = match access.kind.as_str() {
            "repository" if is_repository(&access.name) => repository_actions(who, &access.name),
            "registry" if access.name == "catalog" && matches!(who, Who::Administrator(_)) => &["*"],
            _ => &[],
        };
        let actions: Vec<String> = access.actions.iter().filter(|action| allowed.contains(&action.as_str())).cloned().collect();
        (!actions.is_empty()).then(|| Access { actions, ..access.clone() })
    };
    wanted.iter().filter_map(grant).collect()
}

/// What `who` may do with a repository.
pub fn repository_actions(who: &Who, repository: &str) -> &'static [&'static str] {
    let owner = owner_of(repository);
    match who {
        Who::Administrator(_) => &["pull", "push", "delete"],
        // Nobody can be called so: the name is not given out, and would be the administrators' all the same.
        _ if owner == LIBRARY => &["pull"],
        Who::User(name) if name == owner => &["pull", "push", "delete"],
        Who::User(_) | Who::Nobody => &[],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_may_do_what_the_table_says() {
        let check = |who: &Who, wanted: &str, expected: &str| {
            let granted = granted(who, &scopes(&[wanted.to_owned()]));
            let shown: Vec<String> =
                granted.iter().map(|access| format!("{}:{}:{}", access.kind, access.name, access.actions.join(","))).collect();
            assert_eq!(shown.join(" "), expected, "{who:?} {wanted}");
        };
        let (nobody, user, admin) = (Who::Nobody, Who::User("zmfsea".into()), Who::Administrator("root".into()));
        let all = "repository:zmfsea/x:pull,push,delete";
        check(&user, all, all);
        check(&admin, all, all);
        check(&nobody, all, "");
        check(&Who::User("other".into()), all, "");
        // Whole words, not beginnings.
        check(&Who::User("zm".into()), all, "");
        check(&user, "repository:zmfsea2/x:pull", "");
        check(&user, "repository:zmfsea:pull,push", "repository:zmfsea:pull");
        for library in ["library/anna", "anna"] {
            let wanted = format!("repository:{library}:pull,push,delete");
            for who in [&nobody, &user, &Who::User("library".into())] {
                check(who, &wanted, &format!("repository:{library}:pull"));
            }
            check(&admin, &wanted, &wanted);
        }
        check(&user, "registry:catalog:*", "");
        check(&admin, "registry:catalog:*", "registry:catalog:*");
        check(
            &user,
            "repository:zmfsea/x:pull repository:other/y:pull repository:anna:pull,push",
            "repository:zmfsea/x:pull repository:anna:pull",
        );
        for odd in [
            "",
            "repository",
            "repository:zmfsea/x",
            "repository(plugin):zmfsea/x:pull",
            "repository:zmfsea/x:*",
            "repository:zmfsea/../other/x:pull",
            "repository:zmfsea/X:pull",
            "other:zmfsea/x:pull",
        ] {
            check(&user, odd, "");
        }
    }

    #[test]
    fn scopes_have_a_limit() {
        assert_eq!(scopes(&["repository:a/b:pull ".repeat(100)]).len(), MAX_SCOPES);
    }

    #[test]
    fn whatever_is_thrown_at_scopes_grants_nothing_of_others() {
        let word = prop_oneof![prop::sample::select(vec![
            "repository",
            "registry",
            "catalog",
            "ann",
            "bob",
            "library",
            "pull",
            "push",
            "delete",
            "*",
            "..",
            "",
            "x",
            "%2f"
        ]),];
        let text = prop::collection::vec((word, prop::sample::select(vec![":", "/", ",", " ", ""])), 0..14)
            .prop_map(|words| words.into_iter().map(|(word, separator)| format!("{word}{separator}")).collect::<String>());
        crate::fuzz::check("scopes", 400, &prop_oneof![3 => text, 1 => "\\PC{0,60}"], |text| {
            let wanted = scopes(&[text]);
            for access in granted(&Who::User("ann".into()), &wanted) {
                prop_assert!(wanted.iter().any(|wanted| wanted.kind == access.kind && wanted.name == access.name));
                prop_assert_eq!(&access.kind, "repository");
                let own = access.name.starts_with("ann/");
                let platforms = access.name.starts_with("library/") || !access.name.contains('/');
                prop_assert!(own || platforms && access.actions.iter().all(|action| action == "pull"), "{:?}", access);
                prop_assert!(!access.name.split('/').any(|word| matches!(word, "" | "." | "..")), "{:?}", access);
            }
            prop_assert!(granted(&Who::Nobody, &wanted).iter().all(|access| !access.name.starts_with("ann/")));
            Ok(())
        });
    }
}
