//! The page on which readers unsubscribe: over HTTP, against a real Postgres, as the worker's role.

use std::net::SocketAddr;

use afterwrite::admin::{self, Told};
use afterwrite::handlers::email::unsubscribe::{Unsubscriber, token};
use reqwest::{Client, Method, Response};
use sqlx::postgres::PgPool;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::world::{World, in_world, settings};

/// Serves the page for as long as the test runs; answers where.
async fn served(pool: PgPool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let unsubscriber = Unsubscriber::new(settings().secret, pool);
    tokio::spawn(admin::serve(listener, Told::default(), Some(unsubscriber)));
    address
}

struct Page<'a> {
    world: &'a World,
    address: SocketAddr,
    client: Client,
}

impl<'a> Page<'a> {
    async fn of(world: &'a World) -> Self {
        Self {
            world,
            address: served(world.worker_pool()).await,
            client: Client::new(),
        }
    }

    fn url(&self, token: &str) -> String {
        format!("http://{}/unsubscribe/{token}", self.address)
    }

    async fn send(&self, method: Method, token: &str) -> Response {
        self.client.request(method, self.url(token)).send().await.unwrap()
    }

    /// As mail programs send it.
    async fn one_click(&self, token: &str) -> Response {
        let request = self.client.post(self.url(token));
        let form = request.header("content-type", "application/x-www-form-urlencoded");
        form.body("List-Unsubscribe=One-Click").send().await.unwrap()
    }

    async fn suppressions(&self) -> String {
        self.world
            .text("SELECT string_agg(email || ' ' || reason || ' ' || coalesce(campaign_id::text, '-'), ',') FROM suppressions")
            .await
    }
}

#[tokio::test]
async fn one_click_unsubscribes_once_and_a_look_does_not() {
    in_world(async |world: &mut World| {
        let page = Page::of(world).await;
        // A user need not be there: tokens are about addresses.
        let link = token(&settings().secret, world.campaign, "J.Doe+list@GMail.com");
        for method in [Method::GET, Method::HEAD] {
            let looked = page.send(method.clone(), &link).await;
            assert_eq!(looked.status(), 200);
            let body = looked.text().await.unwrap();
            assert_eq!(
                body.contains("<form method=\"post\"><button"),
                method == Method::GET,
                "{body}"
            );
        }
        assert_eq!(page.suppressions().await, "-");
        let key = afterwrite::handlers::address::suppression_key(&settings().secret, "jdoe@gmail.com");
        let expected = format!("{key} unsubscribed {}", world.campaign);
        for _ in 0..2 {
            let ended = page.one_click(&link).await;
            assert_eq!(ended.status(), 200);
            assert!(ended.text().await.unwrap().contains("You are unsubscribed"));
            assert_eq!(page.suppressions().await, expected);
        }
        // The button sends what mail programs send; so does a form with several parts, and somebody with nothing to say.
        world.exec("DELETE FROM suppressions").await;
        let multipart = page
            .client
            .post(page.url(&link))
            .header("content-type", "multipart/form-data; boundary=x");
        let sent = multipart
            .body("--x\r\ncontent-disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--x--\r\n");
        assert_eq!(sent.send().await.unwrap().status(), 200);
        assert_eq!(page.suppressions().await, expected);
    })
    .await;
}

#[tokio::test]
async fn what_is_no_token_changes_nothing_and_tells_nothing() {
    in_world(async |world: &mut World| {
        let page = Page::of(world).await;
        world.join("ann").await;
        let real = token(&settings().secret, world.campaign, &world.address("ann"));
        let forged = format!("{}A{}", &real[..20], &real[21..]);
        let other = token(
            &afterwrite::handlers::secret::Secret::new("another"),
            world.campaign,
            &world.address("ann"),
        );
        let mut bodies = Vec::new();
        for wrong in [forged.as_str(), other.as_str(), "x", "%00", &"A".repeat(5_000)] {
            for method in [Method::GET, Method::POST] {
                let answer = page.send(method, wrong).await;
                assert_eq!(answer.status(), 404, "{wrong}");
                bodies.push(answer.text().await.unwrap());
            }
        }
        bodies.dedup();
        assert_eq!(bodies.len(), 1);
        assert_eq!(page.suppressions().await, "-");
        // Somebody who never joined, and a campaign that is gone, are answered as everybody is.
        let nobody = token(&settings().secret, world.campaign, "nobody@example.org");
        let gone = token(&settings().secret, Uuid::new_v4(), "nobody@example.org");
        let mut answers = Vec::new();
        for link in [&real, &nobody, &gone] {
            let answer = page.one_click(link).await;
            answers.push((answer.status(), answer.text().await.unwrap()));
        }
        answers.dedup();
        assert_eq!(answers.len(), 1);
        assert_eq!(world.count("suppressions").await, 2);
    })
    .await;
}

#[tokio::test]
async fn answers_are_safe_to_show_and_other_methods_are_refused() {
    in_world(async |world: &mut World| {
        let page = Page::of(world).await;
        let link = token(&settings().secret, world.campaign, "ann@example.org");
        for (method, path, status) in [
            (Method::GET, link.as_str(), 200),
            (Method::POST, link.as_str(), 200),
            (Method::GET, "x", 404),
            (Method::PUT, link.as_str(), 405),
            (Method::DELETE, link.as_str(), 405),
            (Method::OPTIONS, link.as_str(), 405),
        ] {
            let answer = page.send(method.clone(), path).await;
            assert_eq!(answer.status(), status, "{method}");
            let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
            assert!(header("content-security-policy").starts_with("default-src 'none'; style-src 'sha256-"));
            assert_eq!(header("referrer-policy"), "no-referrer");
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert_eq!(header("cache-control"), "no-store");
            assert_eq!(header("x-frame-options"), "DENY");
            if status == 405 {
                assert_eq!(header("allow"), "GET,HEAD,POST");
            } else {
                assert_eq!(header("content-type"), "text/html; charset=utf-8");
            }
        }
        world.exec("DELETE FROM suppressions").await;
        let huge = page
            .client
            .post(page.url(&link))
            .body("x".repeat(100_000))
            .send()
            .await
            .unwrap();
        assert_eq!(huge.status(), 413);
        assert_eq!(page.suppressions().await, "-");
    })
    .await;
}

#[tokio::test]
async fn while_postgres_is_away_nobody_is_told_to_be_unsubscribed() {
    in_world(async |world: &mut World| {
        let pool = world.worker_pool();
        let address = served(pool.clone()).await;
        let link = token(&settings().secret, world.campaign, "ann@example.org");
        pool.close().await;
        let answer = Client::new()
            .post(format!("http://{address}/unsubscribe/{link}"))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "60");
        assert_eq!(answer.headers()["referrer-policy"], "no-referrer");
    })
    .await;
}

/// From the mail to the row that bars the next one.
#[tokio::test]
async fn the_link_of_a_mail_ends_what_it_came_by() {
    in_world(async |world: &mut World| {
        let page = Page::of(world).await;
        let ann = world.member("ann").await;
        world.agree(ann).await;
        world.recorder.drain().await.unwrap();
        let pass = |number: u8| {
            format!(
                "INSERT INTO campaign_milestones (campaign_id, milestone) VALUES ('{}', {number})",
                world.campaign
            )
        };
        world.exec(&pass(1)).await;
        world.pump().await;
        let mails = world.mails_to("ann");
        let header = mails[0]
            .lines()
            .find(|line| line.starts_with("List-Unsubscribe: "))
            .unwrap();
        let link = header.rsplit('/').next().unwrap().trim_end_matches('>');
        assert_eq!(page.one_click(link).await.status(), 200);
        world.exec(&pass(2)).await;
        world.pump().await;
        assert_eq!(world.mails_to("ann").len(), 1);
        assert_eq!(
            world
                .count("email_log WHERE status = 'skipped' AND reason = 'unsubscribed'")
                .await,
            1
        );
    })
    .await;
}
