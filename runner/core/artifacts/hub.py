"""Hugging Face's hub, through its own client: whether it is here, and how long a hub that asks to wait is asked again.

TRUSTED, run by a person.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

from runner.core.artifacts.patience import Again, asked, patiently
from runner.core.base.errors import ArtifactError

T = TypeVar("T")
_TOO_MANY, _TROUBLE = 429, 500  # statuses; of the latter, and above


def client(what: str, where: str, instead: str) -> ModuleType:
    """Its module, an optional dependency; raises ArtifactError where it is not installed."""
    try:
        import huggingface_hub  # noqa: PLC0415 - an optional dependency
    except ImportError:
        fix = f"from the checkout: .venv/bin/pip install -e '.[kernels]'; or {instead}"
        raise ArtifactError(what, where=where, fix=fix) from None
    module: ModuleType = huggingface_hub
    return module


def patient(hub: ModuleType, action: Callable[[], T], say: Callable[[str], None]) -> T:
    """`action`, tried again while the hub asks for that, which its client only looks for in files."""

    def once() -> T:
        try:
            return action()
        except hub.errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status == _TOO_MANY or status >= _TROUBLE:
                raise Again(f"the hub answers {status}", asked(error.response.headers)) from None
            raise

    return patiently(once, say)
