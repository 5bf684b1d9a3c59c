//! Names of an application against the reference's: what is refused, how changes and scripts are renamed.

use super::*;
use crate::handler::Keyless;
use crate::handlers::cases::{inserted, updated};
use crate::handlers::columns;

/// Table, its name, its columns.
type Given<'a> = (&'a str, Option<&'a str>, &'a [(&'a str, &'a str)]);

fn names(tables: &[Given<'_>]) -> Result<Names, NamesError> {
    let given = tables.iter().map(|(table, name, columns)| {
        let own = TableNames {
            name: name.map(str::to_owned),
            columns: columns
                .iter()
                .map(|(of, own)| ((*of).to_owned(), (*own).to_owned()))
                .collect(),
        };
        ((*table).to_owned(), own)
    });
    Names::new(&given.collect())
}

#[test]
fn a_name_that_means_nothing_is_refused_with_those_there_are() {
    for (table, name, columns, expected) in [
        ("users", None, &[][..], "waitlist.tables.users is no table"),
        ("waitlist_users", Some("a.b.c"), &[], "neither table nor schema.table"),
        ("waitlist_users", Some(""), &[], "cannot do without it"),
        (
            "waitlist_users",
            None,
            &[("mail", "mail")],
            "there are id, campaign_id, email",
        ),
        (
            "waitlist_users",
            None,
            &[("email", "")],
            "waitlist.tables.waitlist_users.columns.email is left empty",
        ),
        (
            "waitlist_users",
            None,
            &[("email", "first_name")],
            "two columns are called first_name",
        ),
    ] {
        let refused = names(&[(table, name, columns)]).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    assert!(
        names(&[
            ("webhooks", Some(""), &[]),
            ("waitlist_users", None, &[("first_name", "")])
        ])
        .is_ok()
    );
}

#[test]
fn a_handler_is_routed_by_the_applications_names() {
    let names = names(&[
        ("waitlist_users", Some("app.people"), &[("campaign_id", "list")]),
        ("webhooks", Some(""), &[]),
    ])
    .unwrap();
    let route = |table: &str| Route {
        schema: SCHEMA.to_owned(),
        table: table.to_owned(),
        ordering: Ordering::Columns(vec!["campaign_id".to_owned()]),
        keyless: Keyless::Refused,
    };
    let people = names.route(&route("waitlist_users")).unwrap();
    assert_eq!((people.schema.as_str(), people.table.as_str()), ("app", "people"));
    assert_eq!(people.ordering, Ordering::Columns(vec!["list".to_owned()]));
    assert_eq!(names.route(&route("referrals")).unwrap().table, "referrals");
    assert!(names.route(&route("webhooks")).is_none());
}

#[test]
fn a_change_is_seen_by_the_references_names_and_keeps_its_id() {
    let names = names(&[(
        "waitlist_users",
        Some("people"),
        &[("email", "mail"), ("status", "state")],
    )])
    .unwrap();
    let old = [("id", "a"), ("mail", "a@b.c"), ("state", "pending"), ("status", "x")];
    let new = [("id", "a"), ("mail", "a@b.c"), ("state", "blocked"), ("status", "x")];
    let event = updated("people", &old, &new);
    let seen = names.reference_event(&event).unwrap();
    assert_eq!((seen.id(), &*seen.origin().table), (event.id(), "waitlist_users"));
    assert!(columns::updated(&seen, &["status"]) && !columns::updated(&seen, &["email"]));
    assert_eq!(seen.after().unwrap().text("email"), Some("a@b.c"));
    // The application's own column of that name is another one.
    assert_eq!(seen.after().unwrap().text("status"), Some("blocked"));
    assert!(names.reference_event(&inserted("referrals", &old)).is_none());
}

#[test]
fn scripts_name_the_applications_tables() {
    let names = names(&[("waitlist_users", Some("app.people"), &[]), ("webhooks", Some(""), &[])]).unwrap();
    let script = "ALTER PUBLICATION p SET TABLE public.waitlist_users, public.waitlist_users_old;\nGRANT SELECT ON \
                  public.campaigns, public.webhooks TO w;\nGRANT UPDATE ON public.webhooks TO w;\nDONE;";
    assert_eq!(
        views::rename_tables(&names, script),
        "ALTER PUBLICATION p SET TABLE \"app\".\"people\", public.waitlist_users_old;\nGRANT SELECT ON public.campaigns TO \
         w;\nDONE;"
    );
}

#[test]
fn without_names_there_are_no_views() {
    let none = Names::default();
    assert_eq!(views::script(&none).matches("CREATE").count(), 0);
    assert_eq!(views::grants(&none, "w"), "");
}
