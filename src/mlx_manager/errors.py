"""Every error that can reach a client, as one tree.

    MlxManagerError                 500 internal_error
    ├── InvalidRequest              400 invalid_request        the request is wrong; `param` names the field
    │   ├── UnsupportedParameter    400 unsupported_parameter  understood, but not served here
    │   ├── ContextLengthExceeded   400 context_length_exceeded
    │   └── UnsupportedMediaType    415 unsupported_media_type
    ├── NotAuthenticated            401 not_authenticated      who asks is not known: no key, or one that is not good
    ├── NotPermitted                403 not_permitted          who asks is known, and may not
    ├── ModelNotFound               404 model_not_found
    ├── ResponseNotFound            404 response_not_found     no stored response has that id
    ├── NotFound                    404 not_found              an account, key, provider, route or trace
    ├── HubAccessDenied             403 hub_access_denied      the model hub wants a token, or its terms accepted
    ├── Conflict                    409 conflict               what is asked for does not go with how things stand
    ├── PayloadTooLarge             413 payload_too_large
    ├── QueueFull                   429 queue_full             `retry_after_s` is measured, not guessed
    ├── RateLimited                 429 rate_limited           more than the key, or a login, is allowed
    ├── Unavailable                 503 unavailable            try again: nothing is wrong with the request
    │   ├── ModelLoadFailed         503 model_load_failed
    │   ├── InsufficientMemory      503 insufficient_memory    no room can be made for the model
    │   ├── WorkerDied              503 worker_died
    │   ├── HubUnavailable          503 hub_unavailable        the model hub cannot be reached, or is busy
    │   ├── QueueWait               503 queue_wait             the queue is longer than a route allows
    │   ├── ProviderFailed          502 provider_failed        a provider broke, refused our key, or answered nonsense
    │   │   ├── ProviderBusy        503 provider_busy          a provider wants to be asked later
    │   │   └── TargetTimeout       504 target_timeout         a backend took longer than it is given
    │   ├── StorageUnavailable      503 storage_unavailable    the database is locked, full, read-only or gone
    │   │   └── ValueNotStorable    400 value_not_storable     the request says something that no row can hold
    │   └── ShuttingDown            503 shutting_down
    ├── DownloadFailed              502 download_failed        what the model hub sent is not what it promised
    ├── NotEnoughDisk               507 not_enough_disk
    └── GenerationFailed            500 generation_failed      the engine broke while answering

Each class carries an HTTP status and a code; the dialects (`protocols/`) turn them into their own form.
An error crosses the border between gateway and worker as its `ErrorInfo`.
"""

from __future__ import annotations

import msgspec


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An error as plain values, for the wire between processes."""

    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None


class MlxManagerError(Exception):
    """The root: something went wrong and `message` says what, in words for the person who asked."""

    status: int = 500
    code: str = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def as_info(self) -> ErrorInfo:
        """The same error as plain values."""
        return ErrorInfo(code=self.code, message=self.message, param=self.param, retry_after_s=self.retry_after_s)

    @staticmethod
    def from_info(info: ErrorInfo) -> MlxManagerError:
        """The error that `info` describes; an unknown code gives the root class."""
        error_class = _classes_by_code(MlxManagerError).get(info.code, MlxManagerError)
        return error_class(info.message, param=info.param, retry_after_s=info.retry_after_s)


class InvalidRequest(MlxManagerError):
    """The request itself is wrong."""

    status = 400
    code = "invalid_request"


class UnsupportedParameter(InvalidRequest):
    """A parameter that would change the answer and that this server does not serve."""

    code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """The prompt, with what it asks for, does not fit the model's context."""

    code = "context_length_exceeded"


class UnsupportedMediaType(InvalidRequest):
    """The body is compressed in a way that is not known here."""

    status = 415
    code = "unsupported_media_type"


class NotAuthenticated(MlxManagerError):
    """Nobody said who asks, or not in a way that is good here."""

    status = 401
    code = "not_authenticated"


class NotPermitted(MlxManagerError):
    """Whoever asks may not do this."""

    status = 403
    code = "not_permitted"


class ModelNotFound(MlxManagerError):
    """No model of that name is on this machine or configured."""

    status = 404
    code = "model_not_found"


class ResponseNotFound(MlxManagerError):
    """No response of that id is stored here."""

    status = 404
    code = "response_not_found"


class NotFound(MlxManagerError):
    """There is no account, key, provider, route or trace of that name or number."""

    status = 404
    code = "not_found"


class HubAccessDenied(MlxManagerError):
    """The model hub does not show this model to whoever asks, or to the holder of this token."""

    status = 403
    code = "hub_access_denied"


class Conflict(MlxManagerError):
    """It could be done, but not as things stand; the message says what has to be done first."""

    status = 409
    code = "conflict"


class PayloadTooLarge(MlxManagerError):
    """The request body is larger than the server accepts."""

    status = 413
    code = "payload_too_large"


class QueueFull(MlxManagerError):
    """As many requests wait as the model's queue holds."""

    status = 429
    code = "queue_full"


class RateLimited(MlxManagerError):
    """More was asked than is allowed in this time; `retry_after_s` says when there is more."""

    status = 429
    code = "rate_limited"


class Unavailable(MlxManagerError):
    """The server cannot answer now; the same request may work later."""

    status = 503
    code = "unavailable"


class ModelLoadFailed(Unavailable):
    """The worker could not load the model."""

    code = "model_load_failed"


class InsufficientMemory(Unavailable):
    """No room can be made for the model; the message says what holds the memory."""

    code = "insufficient_memory"


class WorkerDied(Unavailable):
    """The process that served the model ended in the middle of the request."""

    code = "worker_died"


class HubUnavailable(Unavailable):
    """The model hub cannot be reached, or answers no more for now."""

    code = "hub_unavailable"


class QueueWait(Unavailable):
    """The request would wait for longer than its route allows."""

    code = "queue_wait"


class ProviderFailed(Unavailable):
    """A provider could not be reached, broke, refused the key that is kept of it, or answered what cannot be read."""

    status = 502
    code = "provider_failed"


class ProviderBusy(ProviderFailed):
    """A provider takes no more for now."""

    status = 503
    code = "provider_busy"


class TargetTimeout(ProviderFailed):
    """A backend took longer than it is given."""

    status = 504
    code = "target_timeout"


class StorageUnavailable(Unavailable):
    """The database does not take or give what is asked of it; the message says why."""

    code = "storage_unavailable"


class ValueNotStorable(StorageUnavailable):
    """The database is well, and a value is of a kind that it never takes: asking again does not help."""

    status = 400
    code = "value_not_storable"


class ShuttingDown(Unavailable):
    """The server is stopping and takes no new requests."""

    code = "shutting_down"


class DownloadFailed(MlxManagerError):
    """A download broke: what the model hub sent is not what it promised."""

    status = 502
    code = "download_failed"


class NotEnoughDisk(MlxManagerError):
    """What is to be written does not fit on the disk."""

    status = 507
    code = "not_enough_disk"


class GenerationFailed(MlxManagerError):
    """The engine failed while it answered this request."""

    code = "generation_failed"


def _classes_by_code(root: type[MlxManagerError]) -> dict[str, type[MlxManagerError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_classes_by_code(child))
    return found
