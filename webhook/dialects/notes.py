"""The note that a translation leaves in a pod, and the way back by it. Pure.

It says what the pod said before and what was made of it, so that whoever looks again starts from what the author wrote.
A note that somebody invents means no more than the manifest that it describes: it can put back only what a translation
takes out, and all of that is judged as if it stood there.
"""

from typing import Final

import msgspec
from msgspec import Struct

from fracgpu.annotations import split_key
from fracgpu.errors import RequestError
from fracgpu.names import ANNOTATION_UNDERSTOOD, DOMAIN, USER_ANNOTATIONS
from fracgpu.pods import Quantity
from webhook.dialects import gpu_manager, gpushare, hami, nvidia
from webhook.pods import AdmittedPod, count_of, limits_of, requests_of, with_amounts

GO_ON: Final = (
    "only fracgpu writes it, so remove it, and what it wrote beside it is the request: the annotations that begin with "
    f"{DOMAIN}/, and the limits"
)
"""What to do about a note that no longer fits its pod, as after copying one."""

_FOREIGN: Final = frozenset((*gpushare.FOREIGN, *hami.FOREIGN, *gpu_manager.FOREIGN, nvidia.GPU))


class Amounts(Struct, frozen=True, omit_defaults=True):
    """What a container had of foreign resources."""

    limits: dict[str, Quantity] = {}
    requests: dict[str, Quantity] = {}


class Note(Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """The annotation `fracgpu.io/understood`, as JSON.

    Attributes:
        dialect: whose language it was.
        asked: container name -> what was taken out of its resources.
        means: our annotation -> value, as written into the pod.
        seats: container name -> the limit of seats that was written into it, where no annotation says that.
        scheduler_name: what the pod named before; empty where that was left as it was.
    """

    dialect: str
    asked: dict[str, Amounts] = {}
    means: dict[str, str] = {}
    seats: dict[str, int] = {}
    scheduler_name: str = ""


def undone(pod: AdmittedPod) -> tuple[AdmittedPod, Note | None]:
    """The pod as its author wrote it, and the note, where it was translated before.

    It keeps the limits that it got, and its scheduler: who changed that since meant to.

    Raises:
        RequestError: the note is not one of ours, or the pod was changed where it was translated.
    """
    text = pod.annotations.get(ANNOTATION_UNDERSTOOD)
    if text is None:
        return pod, None
    note = _read(text)
    for key, value in note.means.items():
        if pod.annotations.get(key, value) != value:
            raise RequestError(
                f"annotation {key[:128]} is {pod.annotations[key][:64]!r}, and by annotation {ANNOTATION_UNDERSTOOD} "
                f"it was written as {value[:64]!r} for what the pod said in another language ({note.dialect[:64]}); "
                f"to ask in fracgpu's language, remove {ANNOTATION_UNDERSTOOD}"
            )
    taken = note.means.keys() | {ANNOTATION_UNDERSTOOD}
    annotations = {key: value for key, value in pod.annotations.items() if key not in taken}
    changed = {}
    for name in note.asked.keys() - {container.name for _, _, container in pod.listed()}:
        raise RequestError(
            f"annotation {ANNOTATION_UNDERSTOOD} says what container {name[:64]!r} asked for in another language "
            f"({note.dialect[:64]}), and the pod has no such container; {GO_ON}"
        )
    for _, _, container in pod.listed():
        if (asked := note.asked.get(container.name)) is not None:
            limits, requests = limits_of(container), requests_of(container)
            for key in (*(asked.limits.keys() & limits.keys()), *(asked.requests.keys() & requests.keys())):
                raise RequestError(
                    f"container {container.name!r} asks for {key}, and by annotation {ANNOTATION_UNDERSTOOD} that was "
                    f"taken out of it before; remove {ANNOTATION_UNDERSTOOD}, which only fracgpu writes"
                )
            changed[container.name] = with_amounts(
                container, limits=limits | asked.limits, requests=requests | asked.requests
            )
    return pod.with_annotations(annotations).with_containers(changed), note


def _read(text: str) -> Note:
    """Read a note; it can put back only what a translation takes out."""
    try:
        note = _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError):
        note = None
    if note is not None:
        amounts = [
            amount for asked in note.asked.values() for amount in (*asked.limits.items(), *asked.requests.items())
        ]
        if all(key in _FOREIGN and count_of(value) is not None for key, value in amounts) and all(
            key.startswith(f"{DOMAIN}/") and split_key(key)[0] in USER_ANNOTATIONS for key in note.means
        ):
            return note
    raise RequestError(f"annotation {ANNOTATION_UNDERSTOOD} is {text[:64]!r}; only fracgpu writes it, so remove it")


_decoder = msgspec.json.Decoder(Note)
