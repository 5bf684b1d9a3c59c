//! What crawlers and scripts call themselves in `User-Agent` (RFC 9110, 10.1.5).
//!
//! Only whole words count: a phone called CUBOT is no bot. The list holds what says openly that it is no browser; it finds
//! the careless, and whoever wants to hide is found by other checks.

/// The words, in lower case. `-` and `_` belong to a word.
#[rustfmt::skip]
const AUTOMATIC: &[&str] = &[
    // General.
    "bot",
    "crawler",
    "spider",
    "scraper",
    "headless",
    "archiver",
    "fetcher",
    // Search engines, networks and monitors.
    "adsbot-google",
    "ahrefsbot",
    "amazonbot",
    "applebot",
    "baiduspider",
    "bingbot",
    "bingpreview",
    "bytespider",
    "ccbot",
    "claudebot",
    "discordbot",
    "dotbot",
    "duckduckbot",
    "facebookbot",
    "facebookexternalhit",
    "googlebot",
    "googlebot-image",
    "gptbot",
    "ia_archiver",
    "linkedinbot",
    "mediapartners-google",
    "mj12bot",
    "msnbot",
    "petalbot",
    "pingdom",
    "pinterestbot",
    "semrushbot",
    "seznambot",
    "slackbot",
    "slackbot-linkexpanding",
    "slurp",
    "sogou",
    "telegrambot",
    "twitterbot",
    "uptimerobot",
    "yandexbot",
    // Libraries and tools.
    "aiohttp",
    "apache-httpclient",
    "axios",
    "curl",
    "dart",
    "go-http-client",
    "guzzlehttp",
    "http_request2",
    "httpclient",
    "httpie",
    "httpx",
    "insomnia",
    "java",
    "java-http-client",
    "jakarta",
    "libcurl",
    "libwww-perl",
    "lwp",
    "mechanize",
    "node-fetch",
    "node-superagent",
    "okhttp",
    "php",
    "postmanruntime",
    "python",
    "python-httpx",
    "python-requests",
    "python-urllib",
    "python-urllib3",
    "reqwest",
    "requests",
    "rest-client",
    "restsharp",
    "ruby",
    "scrapy",
    "undici",
    "wget",
    "winhttp",
    // Browsers that are driven.
    "chrome-lighthouse",
    "cypress",
    "headlesschrome",
    "htmlunit",
    "phantomjs",
    "playwright",
    "puppeteer",
    "selenium",
    "slimerjs",
    "webdriver",
];

/// The word by which this agent says that it is no person with a browser.
pub(super) fn automatic(agent: &str) -> Option<&'static str> {
    let lower = agent.to_lowercase();
    let mut words = lower.split(|letter: char| !(letter.is_alphanumeric() || letter == '-' || letter == '_'));
    words.find_map(|word| AUTOMATIC.iter().find(|known| **known == word).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_words_tell() {
        for (agent, expected) in [
            (
                "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
                Some("googlebot"),
            ),
            ("curl/8.5.0", Some("curl")),
            ("python-requests/2.31.0", Some("python-requests")),
            ("Go-http-client/2.0", Some("go-http-client")),
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/120.0",
                Some("headlesschrome"),
            ),
            ("my own Bot", Some("bot")),
            (
                "Mozilla/5.0 (Linux; Android 13; CUBOT P80) AppleWebKit/537.36 Chrome/120.0 Mobile Safari/537.36",
                None,
            ),
            ("Mozilla/5.0 (Linux; Android 12; Robotics) Chrome/119.0", None),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/17.1 Safari/605.1.15",
                None,
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:120.0) Gecko/20100101 Firefox/120.0",
                None,
            ),
            ("", None),
        ] {
            assert_eq!(automatic(agent), expected, "{agent}");
        }
    }

    #[test]
    fn every_word_can_be_met() {
        for word in AUTOMATIC {
            assert_eq!(automatic(&format!("x {}/1.0", word.to_uppercase())), Some(*word));
        }
    }
}
