//! What good tokens give.

use super::*;

/// Checks that `token` is accepted and gives its claims.
async fn accepted(settings: Settings, token: &str) -> Claims {
    let verifier = Verifier::open(settings).await.unwrap();
    verifier.verify(token, NOW_MS).await.unwrap()
}

#[tokio::test]
async fn a_token_made_here_says_what_was_granted() {
    let grant = Grant {
        sub: "alice".parse().unwrap(),
        scope: "publish later".to_owned(),
        topics: vec!["feed:*".to_owned()],
        expires_s: NOW_S + 60,
        issued_s: NOW_S,
        jti: Some("t-1".to_owned()),
        issuer: String::new(),
        audience: Vec::new(),
    };
    let token = mint(&SECRET.into(), &grant);
    let open = Settings {
        issuer: String::new(),
        audience: Vec::new(),
        ..settings()
    };
    let claims = accepted(open, &token).await;
    assert_eq!(claims.sub.as_str(), "alice");
    assert!(claims.scope.may_publish() && !claims.scope.is_admin());
    assert_eq!(claims.expires_ms, (NOW_S + 60) * 1000);
    assert_eq!(claims.issued_ms, Some(NOW_MS));
    assert_eq!(claims.jti.as_deref(), Some("t-1"));
    assert_eq!(claims.topics, ["feed:*".parse().unwrap()]);
}

#[tokio::test]
async fn every_kind_of_key_verifies_its_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let issuers = [
        Issuer::es256("ec"),
        Issuer::eddsa("ed"),
        Issuer::rs256("rsa"),
    ];
    let with_keys = Settings {
        public_keys: issuers
            .iter()
            .map(|issuer| issuer.write_pem(directory.path()))
            .collect(),
        ..settings()
    };
    let verifier = Verifier::open(with_keys).await.unwrap();
    let mut tokens: Vec<String> = issuers.iter().map(Issuer::token).collect();
    tokens.push(Issuer::hs256(SECRET.as_bytes()).token());
    // Without a name, the keys of the algorithm are tried.
    tokens.extend(issuers.iter().map(|issuer| {
        let header = json!({"alg": issuer.alg, "typ": "JWT"});
        issuer.token_of(&header.to_string(), &claims().to_string())
    }));
    for token in tokens {
        let claims = verifier.verify(&token, NOW_MS).await.unwrap();
        assert_eq!(claims.sub.as_str(), "alice");
    }
}

#[tokio::test]
async fn forms_that_issuers_use_are_accepted() {
    let issuer = Issuer::hs256(SECRET.as_bytes());
    let header = |header: Value| issuer.token_of(&header.to_string(), &claims().to_string());
    let body = |fields: Value| issuer.token_of(r#"{"alg":"HS256"}"#, &claims_with(fields));
    let tokens = [
        header(json!({"alg": "HS256"})),
        header(json!({"alg": "HS256", "typ": "jwt"})),
        header(json!({"alg": "HS256", "typ": "AT+JWT", "x5t": "abc"})),
        body(json!({"aud": ["other", "tidings-staging"]})),
        body(json!({"nbf": NOW_S + 30, "iat": NOW_S as f64 + 0.5})),
        body(json!({"exp": NOW_S - 29})),
        body(json!({"exp": 253_402_300_799u64})),
        body(json!({"sub": "a.B_c-d@e:1", "email": null, "nested": {"sub": "bob"}})),
    ];
    let verifier = Verifier::open(settings()).await.unwrap();
    for (place, token) in tokens.iter().enumerate() {
        let verdict = verifier.verify(token, NOW_MS).await;
        assert!(verdict.is_ok(), "token {place}: {verdict:?}");
    }
}

#[test]
fn a_scope_is_a_list_of_words() {
    for (scope, publish, admin) in [
        ("", false, false),
        ("publish", true, false),
        ("admin", true, true),
        ("openid publish email", true, false),
        ("publisher admins Admin PUBLISH", false, false),
        ("publish,admin", false, false),
    ] {
        let scopes = Scopes::parse(scope);
        assert_eq!(scopes.may_publish(), publish, "{scope:?}");
        assert_eq!(scopes.is_admin(), admin, "{scope:?}");
    }
}

#[test]
fn a_pattern_covers_its_topic_or_what_begins_with_it() {
    for (pattern, topic, is_match) in [
        ("feed:news", "feed:news", true),
        ("feed:news", "feed:newsroom", false),
        ("feed:*", "feed:news", true),
        ("feed:*", "feed", false),
        ("feed:*", "Feed:news", false),
        ("*", "anything", true),
    ] {
        let parsed: TopicPattern = pattern.parse().unwrap();
        let topic = topic.parse().unwrap();
        assert_eq!(parsed.matches(&topic), is_match, "{pattern} {topic}");
    }
    for bad in ["", "a*b", "**", "*a", "a b*", "ä*", &"x".repeat(129)] {
        assert!(bad.parse::<TopicPattern>().is_err(), "{bad:?}");
    }
}

#[tokio::test]
async fn keys_that_could_verify_nothing_are_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.pem");
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for content in ["", "no key", private] {
        std::fs::write(&path, content).unwrap();
        let bad = Settings {
            public_keys: vec![path.clone()],
            ..settings()
        };
        let error = Verifier::open(bad).await.unwrap_err();
        assert!(matches!(error, OpenError::Key { .. }), "{error}");
    }
    let missing = Settings {
        jwks: directory.path().join("none.json").display().to_string(),
        ..settings()
    };
    let error = Verifier::open(missing).await.unwrap_err();
    assert!(matches!(error, OpenError::Jwks { .. }), "{error}");
    let none = Settings {
        hs256_secret: "".into(),
        ..settings()
    };
    let error = Verifier::open(none).await.unwrap_err();
    assert!(matches!(error, OpenError::NoKey), "{error}");
}
