//! FAULTS.md section 4.4 as a table: every token here differs from a good one in one point.

use super::*;

struct Case {
    what: String,
    token: String,
    is_expired: bool,
}

fn case(what: impl Into<String>, token: String) -> Case {
    Case {
        what: what.into(),
        token,
        is_expired: false,
    }
}

/// Signed by the right secret; the header is wrong.
fn headers(hs: &Issuer) -> Vec<Case> {
    let good = claims().to_string();
    let with = |fields: Value| {
        let mut header = json!({"alg": "HS256"});
        for (name, value) in fields.as_object().unwrap() {
            header[name] = value.clone();
        }
        case(header.to_string(), hs.token_of(&header.to_string(), &good))
    };
    let mut cases: Vec<Case> = [
        "none", "None", "NONE", "nOnE", "HS384", "HS512", "hs256", "", "PS256", "ES384",
    ]
    .into_iter()
    .map(|alg| with(json!({"alg": alg})))
    .collect();
    cases.extend([Value::Null, json!(256), json!(["HS256"])].map(|alg| with(json!({"alg": alg}))));
    cases.extend(
        [
            json!("../../etc/passwd"),
            json!("\u{0}"),
            json!("' OR 1=1 --"),
            json!("x".repeat(5000)),
            json!("unknown"),
            json!(""),
            json!(7),
            json!(null),
        ]
        .map(|kid| with(json!({"kid": kid}))),
    );
    cases.extend(
        [
            json!("JWE"),
            json!("JWT "),
            json!("dpop+jwt"),
            json!(1),
            json!(null),
        ]
        .map(|typ| with(json!({"typ": typ}))),
    );
    cases.extend([
        with(json!({"crit": ["exp"]})),
        with(json!({"crit": null})),
        with(json!({"jku": "http://127.0.0.1:9/jwks"})),
        with(json!({"x5u": "http://127.0.0.1:9/x5u"})),
        with(json!({"jwk": hs.jwk})),
        with(json!({"x5c": ["AAAA"]})),
        with(json!({"b64": false})),
        with(json!({"zip": "DEF"})),
    ]);
    for header in [
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","kid":"a","kid":"b"}"#,
        r#"{"typ":"JWT"}"#,
        "{}",
        "[]",
        "\"HS256\"",
        r#"{"alg":"HS256"} {}"#,
        "\u{feff}{\"alg\":\"HS256\"}",
        "",
    ] {
        cases.push(case(header, hs.token_of(header, &good)));
    }
    cases
}

/// Signed by the right secret; `fields` replace or join the good claims.
fn with_claims(hs: &Issuer, fields: Value) -> Case {
    let token = hs.token_of(r#"{"alg":"HS256"}"#, &claims_with(fields.clone()));
    case(fields.to_string(), token)
}

fn times(hs: &Issuer) -> Vec<Case> {
    let with = |fields| with_claims(hs, fields);
    let expired = |exp: u64| Case {
        is_expired: true,
        ..with(json!({"exp": exp}))
    };
    let mut cases = vec![expired(NOW_S - 30), expired(NOW_S - 90), expired(0)];
    let times = [
        json!("1795231800"),
        json!(-1),
        json!(NOW_S as f64 + 60.5),
        json!(18_446_744_073_709_551_616.0),
        json!(u64::MAX),
        json!(NOW_MS + 3_600_000),
        json!(true),
        json!([NOW_S]),
        json!(null),
    ];
    for time in times {
        cases.push(with(json!({"exp": time.clone()})));
        cases.push(with(json!({"nbf": time})));
    }
    cases.extend([
        with(json!({"nbf": NOW_S + 31})),
        with(json!({"nbf": NOW_S + 3600})),
        with(json!({"iat": "now"})),
        with(json!({"iat": -1})),
        with(json!({"iat": 1e300})),
    ]);
    cases
}

fn values(hs: &Issuer) -> Vec<Case> {
    let with = |fields| with_claims(hs, fields);
    let mut cases = vec![
        with(json!({"aud": "other"})),
        with(json!({"aud": []})),
        with(json!({"aud": ["other", "Tidings"]})),
        with(json!({"aud": null})),
        with(json!({"aud": 7})),
        with(json!({"iss": "https://id.example/"})),
        with(json!({"iss": ["https://id.example"]})),
        with(json!({"iss": null})),
        with(json!({"sub": ""})),
        with(json!({"sub": "a".repeat(129)})),
        with(json!({"sub": "*"})),
        with(json!({"sub": "alice\u{0}"})),
        with(json!({"sub": "alice\n"})),
        with(json!({"sub": " alice"})),
        with(json!({"sub": "ａlice"})),
        with(json!({"sub": "ali\u{301}ce"})),
        with(json!({"sub": null})),
        with(json!({"sub": 1})),
        with(json!({"scope": ["admin"]})),
        with(json!({"scope": null})),
        with(json!({"topics": "feed:*"})),
        with(json!({"topics": ["a*b"]})),
        with(json!({"jti": ""})),
        with(json!({"jti": "x".repeat(257)})),
    ];
    for missing in ["exp", "sub", "iss", "aud"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(missing);
        cases.push(case(
            format!("no {missing}"),
            hs.token_of(r#"{"alg":"HS256"}"#, &claims.to_string()),
        ));
    }
    cases
}

/// Claims that are not one object with each name once.
fn bodies(hs: &Issuer) -> Vec<Case> {
    let good = claims().to_string();
    let bodies = [
        good.replacen('{', r#"{"sub":"root","#, 1),
        good.replacen('{', r#"{"exp":1,"#, 1),
        good.replacen('{', r#"{"other":1,"other":2,"#, 1),
        format!("[{good}]"),
        format!("{good}{good}"),
        good.replace("alice", "\\ud800"),
        good.replace("alice", "al\u{7f}ice"),
        "null".to_owned(),
        String::new(),
        format!(
            r#"{{"deep":{}1{},{}"#,
            "[".repeat(2000),
            "]".repeat(2000),
            &good[1..]
        ),
        good.replace(&(NOW_S + 3600).to_string(), "18446744073709551616"),
        good.replace(&(NOW_S + 3600).to_string(), "1e400"),
    ];
    bodies
        .into_iter()
        .map(|body| {
            let what = body.chars().take(80).collect::<String>();
            case(what, hs.token_of(r#"{"alg":"HS256"}"#, &body))
        })
        .collect()
}

/// The text of the token is wrong.
fn texts(hs: &Issuer) -> Vec<Case> {
    let good = hs.token();
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, body) = message.split_once('.').unwrap();
    let last = signature.chars().last().unwrap();
    let other = if last == 'A' { 'E' } else { 'A' };
    let cut = &signature[..signature.len() - 1];
    // An HMAC-SHA256 has 43 characters, the last with two bits to spare.
    let spare = char::from(last as u8 + 1);
    let long = |bytes: usize| {
        let claims = claims_with(json!({"pad": "x".repeat(bytes)}));
        hs.token_of(r#"{"alg":"HS256"}"#, &claims)
    };
    let standard = hs.token_of(r#"{"alg":"HS256"}"#, &claims_with(json!({"pad": "~~~???"})));
    let texts = [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        message.to_owned(),
        format!("{message}."),
        format!("{message}.."),
        format!("{good}."),
        format!("{good}.."),
        format!(".{good}"),
        format!("{header}.{signature}"),
        format!("{header}.{body}.{body}.{signature}.{signature}"),
        format!("{header}..{signature}"),
        format!(".{body}.{signature}"),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}\n"),
        format!("{header} .{body}.{signature}"),
        format!("{good}="),
        format!("{header}=.{body}.{signature}"),
        format!("{message}.{cut}"),
        format!("{message}.{cut}{other}"),
        format!("{message}.{cut}{spare}"),
        format!("{message}.{signature}AAAA"),
        format!("{message}.{}", signature.to_uppercase()),
        format!("{message}.{}ü", cut),
        format!("Bearer {good}"),
        format!(
            "{header}.{}.{signature}",
            base64url(claims_with(json!({"sub": "root"})).as_bytes())
        ),
        standard.replace(['-', '_'], "+"),
        long(8 * 1024),
        long(1024 * 1024),
        "A".repeat(8 * 1024),
        ".".repeat(8 * 1024),
        "....".to_owned(),
    ];
    texts
        .into_iter()
        .map(|token| case(token.chars().take(120).collect::<String>(), token))
        .collect()
}

/// Signed by a key, but not by one that is trusted for this algorithm and name.
fn keys(hs: &Issuer, es: &Issuer, ed: &Issuer, rsa: &Issuer) -> Vec<Case> {
    let good = claims().to_string();
    let mut cases = Vec::new();
    for issuer in [es, ed, rsa] {
        let as_secret = Issuer::hs256(issuer.pem.as_bytes());
        cases.push(case(
            format!("the {} public key as a secret", issuer.alg),
            as_secret.token(),
        ));
        let named = json!({"alg": "HS256", "kid": issuer.kid}).to_string();
        cases.push(case(
            format!("the {} public key as a secret, named", issuer.alg),
            as_secret.token_of(&named, &good),
        ));
        cases.push(case(
            format!("the secret under the name of {}", issuer.alg),
            hs.token_of(&named, &good),
        ));
        let unknown = json!({"alg": issuer.alg, "kid": "other"}).to_string();
        cases.push(case(
            format!("{} under an unknown name", issuer.alg),
            issuer.token_of(&unknown, &good),
        ));
        let claimed = json!({"alg": "HS256"}).to_string();
        cases.push(case(
            format!("{} said to be HS256", issuer.alg),
            issuer.token_of(&claimed, &good),
        ));
    }
    cases.push(case("another secret", Issuer::hs256(b"other").token()));
    cases.push(case("an empty secret", Issuer::hs256(b"").token()));
    cases.push(case("another P-256 key", Issuer::es256(&es.kid).token()));
    cases.push(case("another Ed25519 key", Issuer::eddsa(&ed.kid).token()));
    let crossed = json!({"alg": "ES256", "kid": ed.kid}).to_string();
    cases.push(case(
        "ES256 under the name of EdDSA",
        es.token_of(&crossed, &good),
    ));
    let message = es.token();
    let message = message.rsplit_once('.').unwrap().0;
    let zero = base64url(&[0; 64]);
    cases.push(case(
        "an ECDSA signature of zeros",
        format!("{message}.{zero}"),
    ));
    cases
}

#[tokio::test]
async fn a_token_with_anything_wrong_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let hs = Issuer::hs256(SECRET.as_bytes());
    let (es, ed, rsa) = (
        Issuer::es256("ec"),
        Issuer::eddsa("ed"),
        Issuer::rs256("rsa"),
    );
    let with_keys = Settings {
        public_keys: [&es, &ed, &rsa]
            .map(|key| key.write_pem(directory.path()))
            .to_vec(),
        ..settings()
    };
    let verifier = Verifier::open(with_keys).await.unwrap();
    let mut cases = headers(&hs);
    cases.extend(times(&hs));
    cases.extend(values(&hs));
    cases.extend(bodies(&hs));
    cases.extend(texts(&hs));
    cases.extend(keys(&hs, &es, &ed, &rsa));
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    for Case {
        what,
        token,
        is_expired,
    } in cases
    {
        let verdict = verifier.verify(&token, NOW_MS).await;
        let as_expected = match &verdict {
            Err(Refused::Expired) => is_expired,
            Err(Refused::Invalid(_)) => !is_expired,
            Ok(_) => false,
        };
        assert!(as_expected, "{what}: {verdict:?}");
    }
    // The token from which all others differ.
    assert!(verifier.verify(&hs.token(), NOW_MS).await.is_ok());
}

#[test]
fn a_wrong_form_is_found_before_any_signature_is_computed() {
    let good = Issuer::hs256(SECRET.as_bytes()).token();
    assert!(Signed::parse(&good).is_ok());
    let parts: Vec<&str> = good.split('.').collect();
    for place in 0..3 {
        for (what, part) in [
            ("empty", String::new()),
            ("padded", format!("{}=", parts[place])),
            ("cut", parts[place][..5].to_owned()),
            ("bits left over", "AB".to_owned()),
            ("bits left over", "AAB".to_owned()),
        ] {
            let mut changed = parts.clone();
            changed[place] = &part;
            let verdict = Signed::parse(&changed.join(".")).err();
            let cause = Some("a part of the token is not base64url");
            assert_eq!(verdict, cause, "{what} in part {place}");
        }
    }
}
