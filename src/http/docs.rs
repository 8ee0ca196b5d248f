//! The API's own description: every route with its words, from which `/openapi.json` is made (OpenAPI 3.2, utoipa),
//! and the page that shows it, `/docs`, whole from the binary.
//!
//! Promises: a route cannot be served without its description, since both are one entry of `routes`; a code that a
//! route names is in the table of `codes`. It never looks at a request.

pub mod codes;
pub mod operation;
pub mod schemas;

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::Path;
use axum::handler::Handler;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use utoipa::ToSchema;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{
    Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, Ref, Schema, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{HttpMethod, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, PathItem};
use utoipa::openapi::{PathsBuilder, RefOr, Required};

use crate::http::error::Problem;
use crate::http::routes;
use crate::http::state::App;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone.
    Public,
    /// A user, for itself.
    User,
    /// A token with the scope publish or admin.
    Publish,
    /// A token with the scope admin.
    Admin,
}

/// One route: what it answers to, what does it, and what is said about it.
pub struct Route {
    pub method: HttpMethod,
    pub path: &'static str,
    pub access: Access,
    handler: MethodRouter<Arc<App>>,
    tag: &'static str,
    summary: &'static str,
    detail: &'static str,
    queries: Vec<(&'static str, &'static str)>,
    bodies: Vec<Content>,
    answers: Vec<(u16, &'static str, Option<Content>)>,
    codes: Vec<&'static str>,
}

/// A media type and the shape of what it carries.
struct Content {
    media_type: &'static str,
    shape: Shape,
}

struct Shape {
    name: Cow<'static, str>,
    schemas: Vec<(String, RefOr<Schema>)>,
}

impl Shape {
    fn of<T: ToSchema>() -> Shape {
        let mut schemas = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut schemas);
        Shape {
            name: T::name(),
            schemas,
        }
    }
}

impl Route {
    pub fn new<H, T>(
        tag: &'static str,
        access: Access,
        (method, path): (HttpMethod, &'static str),
        handler: H,
    ) -> Route
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        let filter = match method {
            HttpMethod::Get => MethodFilter::GET,
            HttpMethod::Put => MethodFilter::PUT,
            HttpMethod::Delete => MethodFilter::DELETE,
            HttpMethod::Patch => MethodFilter::PATCH,
            _ => MethodFilter::POST,
        };
        Route {
            method,
            path,
            access,
            handler: on(filter, handler),
            tag,
            summary: "",
            detail: "",
            queries: Vec::new(),
            bodies: Vec::new(),
            answers: Vec::new(),
            codes: Vec::new(),
        }
    }

    pub fn says(mut self, summary: &'static str, detail: &'static str) -> Route {
        (self.summary, self.detail) = (summary, detail);
        self
    }

    pub fn query(mut self, queries: &[(&'static str, &'static str)]) -> Route {
        self.queries.extend_from_slice(queries);
        self
    }

    /// A JSON body.
    pub fn takes<T: ToSchema>(self) -> Route {
        self.takes_as::<T>("application/json")
    }

    pub fn takes_as<T: ToSchema>(mut self, media_type: &'static str) -> Route {
        let shape = Shape::of::<T>();
        self.bodies.push(Content { media_type, shape });
        self
    }

    /// A JSON answer.
    pub fn gives<T: ToSchema>(self, status: u16, meaning: &'static str) -> Route {
        self.gives_as::<T>(status, meaning, "application/json")
    }

    pub fn gives_as<T: ToSchema>(
        mut self,
        status: u16,
        meaning: &'static str,
        media_type: &'static str,
    ) -> Route {
        let shape = Shape::of::<T>();
        self.answers
            .push((status, meaning, Some(Content { media_type, shape })));
        self
    }

    /// An answer without a body.
    pub fn done(mut self, status: u16, meaning: &'static str) -> Route {
        self.answers.push((status, meaning, None));
        self
    }

    /// Codes of its refusals, separated by spaces, beside those that every route of its kind has.
    pub fn refuses(mut self, codes: &'static str) -> Route {
        self.codes.extend(codes.split(' '));
        self
    }

    pub fn into_parts(self) -> (&'static str, MethodRouter<Arc<App>>) {
        (self.path, self.handler)
    }

    /// All codes of its refusals.
    fn all_codes(&self) -> Vec<&'static str> {
        let mut codes = self.codes.clone();
        codes.extend([
            "ambiguous_length",
            "invalid_url",
            "invalid_host",
            "internal_error",
        ]);
        if self.access != Access::Public {
            codes.extend(["unauthorized", "rate_limited", "forbidden", "store_failed"]);
        }
        if self.method != HttpMethod::Get {
            codes.extend(["forbidden", "disk_full", "store_failed", "body_too_large"]);
        }
        if !self.bodies.is_empty() {
            codes.extend(["invalid_json", "invalid_body", "unsupported_media_type"]);
            codes.push("unsupported_encoding");
        }
        codes.sort_unstable();
        codes.dedup();
        codes
    }

    fn operation(&self) -> Operation {
        let mut operation = OperationBuilder::new()
            .tag(self.tag)
            .summary(Some(self.summary))
            .description(Some(self.description()))
            .operation_id(Some(self.id()));
        for parameter in self.parameters() {
            operation = operation.parameter(parameter);
        }
        if self.access != Access::Public {
            for scheme in ["bearer", "cookie"] {
                operation =
                    operation.security(SecurityRequirement::new(scheme, Vec::<String>::new()));
            }
        }
        for (status, meaning, content) in &self.answers {
            let mut response = ResponseBuilder::new().description(*meaning);
            if let Some(content) = content {
                response = response.content(content.media_type, content.reference());
            }
            operation = operation.response(status.to_string(), response.build());
        }
        for (status, codes) in codes::by_status(&self.all_codes()) {
            let meanings = codes
                .iter()
                .map(|code| format!("`{}`: {}", code.code, code.meaning));
            let response = ResponseBuilder::new()
                .description(meanings.collect::<Vec<_>>().join("; "))
                .content(
                    "application/problem+json",
                    ContentBuilder::new()
                        .schema(Some(Ref::from_schema_name("Problem")))
                        .build(),
                );
            operation = operation.response(status.to_string(), response.build());
        }
        operation.request_body(self.request_body()).build()
    }

    fn description(&self) -> String {
        let access = match self.access {
            Access::Public => "Anyone may call it.",
            Access::User => "Needs a token; acts for its user.",
            Access::Publish => "Needs a token with the scope `publish` or `admin`.",
            Access::Admin => "Needs a token with the scope `admin`.",
        };
        format!("{} {access}", self.detail).trim().to_owned()
    }

    /// Method and path as one name: `get_v1_events`.
    fn id(&self) -> String {
        let method = format!("{:?}", MethodName(&self.method)).to_lowercase();
        let words = self
            .path
            .split(|letter: char| !letter.is_ascii_alphanumeric());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        match words.join("_").as_str() {
            "" => format!("{method}_root"),
            words => format!("{method}_{words}"),
        }
    }

    fn parameters(&self) -> Vec<Parameter> {
        let named = |name: &str, place, required, description: &str| {
            ParameterBuilder::new()
                .name(name)
                .parameter_in(place)
                .required(required)
                .description(Some(description))
                .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
                .build()
        };
        let in_path = self.path.split('/').filter_map(|part| {
            let name = part
                .strip_prefix('{')?
                .strip_suffix('}')?
                .trim_start_matches('*');
            Some(named(
                name,
                ParameterIn::Path,
                Required::True,
                routes::path_parameter(name),
            ))
        });
        let in_query = self
            .queries
            .iter()
            .map(|(name, words)| named(name, ParameterIn::Query, Required::False, words));
        in_path.chain(in_query).collect()
    }

    fn request_body(&self) -> Option<RequestBody> {
        if self.bodies.is_empty() {
            return None;
        }
        let mut body = RequestBodyBuilder::new().required(Some(Required::True));
        for content in &self.bodies {
            body = body.content(content.media_type, content.reference());
        }
        Some(body.build())
    }
}

impl Content {
    fn reference(&self) -> utoipa::openapi::Content {
        let reference = Ref::from_schema_name(self.shape.name.as_ref());
        ContentBuilder::new().schema(Some(reference)).build()
    }
}

/// utoipa's method has no name of its own.
struct MethodName<'a>(&'a HttpMethod);

impl std::fmt::Debug for MethodName<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self.0 {
            HttpMethod::Get => "get",
            HttpMethod::Put => "put",
            HttpMethod::Delete => "delete",
            HttpMethod::Patch => "patch",
            _ => "post",
        })
    }
}

/// The whole document.
pub fn openapi() -> OpenApi {
    let mut paths = PathsBuilder::new();
    let mut components = ComponentsBuilder::new()
        .security_scheme("bearer", bearer())
        .security_scheme("cookie", cookie());
    let problem = Shape::of::<schemas::Problem>();
    components = components.schemas_from_iter(problem.schemas);
    for route in routes::table() {
        let item = PathItem::new(route.method.clone(), route.operation());
        paths = paths.path(route.path.replace("{*", "{"), item);
        let answers = route
            .answers
            .into_iter()
            .filter_map(|(_, _, content)| content);
        for content in route.bodies.into_iter().chain(answers) {
            components = components.schemas_from_iter(content.shape.schemas);
        }
    }
    let info = InfoBuilder::new()
        .title("Tidings")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(routes::INTRODUCTION))
        .license(Some(
            LicenseBuilder::new().name("MIT OR Apache-2.0").build(),
        ));
    OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(components.build()))
        .build()
}

fn bearer() -> SecurityScheme {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(
            "`sub` is the user, `scope` what it may: none, `publish`, `admin`.",
        ));
    SecurityScheme::Http(scheme.build())
}

fn cookie() -> SecurityScheme {
    let words = "Set by `POST /v1/session`; for writes the request must name an allowed `Origin`.";
    let value = ApiKeyValue::with_description(crate::http::caller::COOKIE, words);
    SecurityScheme::ApiKey(ApiKey::Cookie(value))
}

/// `GET /openapi.json`
pub async fn document() -> Response {
    let json = openapi()
        .to_json()
        .expect("the document is made of strings and numbers");
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, json).into_response()
}

/// `GET /docs`
pub async fn index() -> Redirect {
    Redirect::permanent("/docs/")
}

/// The viewer sets styles on its elements and draws its icons from `data:`; scripts come from here only.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; \
                      frame-ancestors 'none'; object-src 'none'";

/// `GET /docs/…`: the viewer's files, all of them in the binary.
pub async fn page(path: Option<Path<String>>) -> Result<Response, Problem> {
    let path = path.map_or_else(String::new, |Path(path)| path);
    let config = utoipa_swagger_ui::Config::new(["/openapi.json"])
        .validator_url("none")
        .try_it_out_enabled(true)
        .persist_authorization(false);
    let served = utoipa_swagger_ui::serve(&path, Arc::new(config));
    let file = served.ok().flatten().ok_or_else(Problem::not_found)?;
    let content_type = match file.content_type.as_str() {
        text if text.starts_with("text/") => {
            HeaderValue::from_str(&format!("{text}; charset=utf-8"))
        }
        other => HeaderValue::from_str(other),
    };
    let content_type = content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let mut response = file.bytes.into_owned().into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    if file.gzpipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY),
    );
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    Ok(response)
}
