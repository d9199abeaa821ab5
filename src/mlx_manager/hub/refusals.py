"""What the hub's client raises, as errors of ours: each says what to do about it."""

from __future__ import annotations

import errno

import httpx2
from huggingface_hub import get_token
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mlx_manager.errors import (
    DownloadFailed,
    HubAccessDenied,
    HubUnavailable,
    InvalidRequest,
    MlxManagerError,
    ModelNotFound,
    NotEnoughDisk,
)
from mlx_manager.hub.access import HubAccess

CLIENT_ERRORS = (httpx2.HTTPError, HFValidationError, OSError, ValueError)
"""Everything that the client raises for what the hub, the network, the disk or the caller did."""
_DEFAULT_RETRY_S = 60.0


def translate(error: Exception, model_id: str, access: HubAccess) -> MlxManagerError:
    """`error`, raised while the hub was asked about `model_id` ("" where it was asked about none in particular)."""
    # the client wraps what really happened into "not found on the disk either"
    known = next((cause for cause in _causes(error) if _is_telling(cause)), error)
    page = f"{access.endpoint}/{model_id}"
    refusal: MlxManagerError = DownloadFailed(f"{model_id or 'The search'} failed: {error}")
    match known:
        case GatedRepoError():
            refusal = HubAccessDenied(
                f"{model_id} is gated: accept its terms on {page}, then {_set_token(access, 'that account')}."
            )
        case RepositoryNotFoundError():
            refusal = ModelNotFound(
                f"There is no model {model_id!r} on {access.endpoint}, or it is private: for a private one "
                f"{_set_token(access, 'an account that may see it')}."
            )
        case RevisionNotFoundError():
            refusal = ModelNotFound(f"{model_id} has no such revision. Its branches and tags are on {page}/tree/main.")
        case HfHubHTTPError():
            refusal = _translate_status(known, page, access)
        case OfflineModeIsEnabled():
            refusal = HubUnavailable("The model hub is not asked while HF_HUB_OFFLINE is set. Unset it to download.")
        case httpx2.TransportError():
            reason = str(known) or type(known).__name__
            refusal = HubUnavailable(
                f"{access.endpoint} cannot be reached: {reason}. Check the network, a proxy, or HF_ENDPOINT."
            )
        case HFValidationError():
            refusal = InvalidRequest(f"{model_id!r} is not the name of a model on the hub: it has the form org/name.")
        case FileMetadataError():
            refusal = HubUnavailable(f"What answers at {access.endpoint} is no model hub: check HF_ENDPOINT.")
        case OSError(errno=errno.ENOSPC):
            refusal = NotEnoughDisk(f"The disk of {access.cache} is full. Free some of it, then resume the download.")
        case OSError() if known.errno is not None:
            refusal = DownloadFailed(f"{known.filename or access.cache}: {known.strerror}.")
    return refusal


def _translate_status(error: HfHubHTTPError, page: str, access: HubAccess) -> MlxManagerError:
    status = error.response.status_code
    said = error.server_message or error.response.reason_phrase
    if status == 401:
        return HubAccessDenied(
            f"{access.endpoint} refuses the token ({said}): {_set_token(access, 'your account')}, one that has not "
            "been revoked."
        )
    if status == 403:
        return HubAccessDenied(f"The token may not read {page} ({said}). Give it the right to read, or use another.")
    if status == 429:
        wait_s = _retry_after_s(error)
        return HubUnavailable(
            f"{access.endpoint} gets too many requests from here: try again in {wait_s:.0f} s. With a token it allows "
            "more.",
            retry_after_s=wait_s,
        )
    if status >= 500:
        return HubUnavailable(f"{access.endpoint} answers {status} ({said}). Try again later.", retry_after_s=5)
    return DownloadFailed(f"{page}: the hub answers {status} ({said}).")


def _set_token(access: HubAccess, whose: str) -> str:
    has_token = bool(access.token or get_token())
    verb = "use a token" if has_token else "set a token"
    return f"{verb} of {whose} (setting hf_token, or HF_TOKEN; made on {access.endpoint}/settings/tokens)"


def _retry_after_s(error: HfHubHTTPError) -> float:
    try:
        return float(error.response.headers.get("retry-after", _DEFAULT_RETRY_S))
    except ValueError:
        return _DEFAULT_RETRY_S


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__
    return found


def _is_telling(error: BaseException) -> bool:
    if isinstance(error, HfHubHTTPError):
        return getattr(error, "response", None) is not None
    return isinstance(error, OfflineModeIsEnabled | httpx2.TransportError | HFValidationError | FileMetadataError) or (
        isinstance(error, OSError) and error.errno is not None
    )
