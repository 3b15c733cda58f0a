//! The API version a request asks for: `/v1.24/…` to `/v1.51/…`, or none for the newest.
use axum::extract::Request;
use axum::http::{Uri, uri::PathAndQuery};
use hull_api_types::{API_VERSION, MIN_API_VERSION};

use crate::error::{ApiError, ApiResult};

/// A version of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion {
    major: u16,
    minor: u16,
}

impl ApiVersion {
    /// The newest.
    pub(crate) const NEWEST: Self = Self {
        major: 1,
        minor: 51,
    };
    const OLDEST: Self = Self {
        major: 1,
        minor: 24,
    };
    /// From here on pruning volumes spares the named ones.
    pub(crate) const PRUNES_ANONYMOUS: Self = Self {
        major: 1,
        minor: 42,
    };
    /// From here on streams without a terminal say that they are multiplexed.
    pub(crate) const MULTIPLEXED_TYPE: Self = Self {
        major: 1,
        minor: 42,
    };

    /// The version that a request came with.
    pub(crate) fn of(request: &Request) -> Self {
        request.extensions().get().copied().unwrap_or(Self::NEWEST)
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(major) || !digits(minor) {
            return None;
        }
        // What is too large for the type is too new.
        let number = |part: &str| part.parse().unwrap_or(u16::MAX);
        Some(Self {
            major: number(major),
            minor: number(minor),
        })
    }
}

/// Takes the version off a path and refuses those not spoken.
pub(crate) fn split(uri: &Uri) -> ApiResult<(ApiVersion, Option<Uri>)> {
    let path = uri.path();
    let versioned = path.strip_prefix("/v").and_then(|rest| {
        let (text, _) = rest.split_once('/')?;
        Some((ApiVersion::parse(text)?, text))
    });
    let Some((version, text)) = versioned else {
        return Ok((ApiVersion::NEWEST, None));
    };
    if version < ApiVersion::OLDEST {
        return Err(ApiError::bad_request(format!(
            "client version {text} is too old. Minimum supported API version is \
             {MIN_API_VERSION}, please upgrade your client to a newer version"
        )));
    }
    if version > ApiVersion::NEWEST {
        return Err(ApiError::bad_request(format!(
            "client version {text} is too new. Maximum supported API version is {API_VERSION}"
        )));
    }
    let whole = uri.path_and_query().map_or("", PathAndQuery::as_str);
    let rest = whole.get("/v".len() + text.len()..).unwrap_or("/");
    let stripped = rest
        .parse()
        .map_err(|_| ApiError::bad_request("malformed request path"))?;
    Ok((version, Some(stripped)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> ApiResult<(ApiVersion, String)> {
        let uri: Uri = path.parse().unwrap();
        split(&uri).map(|(version, rest)| (version, rest.unwrap_or(uri).to_string()))
    }

    #[test]
    fn version_is_taken_off_the_path() {
        let (version, rest) = of("/v1.41/containers/json?all=1").unwrap();
        assert!(version < ApiVersion::MULTIPLEXED_TYPE);
        assert_eq!(rest, "/containers/json?all=1");
        assert_eq!(of("/version").unwrap().1, "/version");
        assert_eq!(of("/volumes/v1").unwrap().0, ApiVersion::NEWEST);
        assert_eq!(of("/vx.1/info").unwrap().1, "/vx.1/info");
    }

    #[test]
    fn constants_are_the_wire_types_own() {
        assert_eq!(ApiVersion::parse(API_VERSION), Some(ApiVersion::NEWEST));
        assert_eq!(ApiVersion::parse(MIN_API_VERSION), Some(ApiVersion::OLDEST));
    }

    #[test]
    fn version_too_old_or_new_is_refused_in_dockers_words() {
        assert_eq!(
            of("/v1.12/info").unwrap_err().message(),
            "client version 1.12 is too old. Minimum supported API version is 1.24, please \
             upgrade your client to a newer version"
        );
        assert_eq!(
            of("/v1.99999999/info").unwrap_err().message(),
            "client version 1.99999999 is too new. Maximum supported API version is 1.51"
        );
    }
}
