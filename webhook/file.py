"""The webhook's settings from flags, environment and file, and the policy that they come to."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fracgpu.errors import SettingError
from fracgpu.process.configfile import parse_config, read_config, shown
from fracgpu.quantities import Mib
from webhook.pods import Toleration
from webhook.policy import Policy
from webhook.rules import check_consistent, namespace_rules, rules_of
from webhook.settings import TAINT, WebhookSettings

VERSION = "v1alpha1"


def load_settings(argv: Sequence[str]) -> tuple[WebhookSettings, Policy]:
    """Read flags, environment and the file that they name.

    Args:
        argv: the command line without the program's name.

    Raises:
        SettingError: one line for each setting that is missing or unusable.
        SystemExit: after ``--help``.
    """
    special: object = None

    def read(path: Path) -> Mapping[str, Any]:
        nonlocal special
        content = read_config(path)
        try:
            document = dict(parse_config(content))
            version = document.pop("version", None)
            if version != VERSION:
                raise SettingError(
                    f"version is {'missing' if version is None else shown(version)}; it must be {VERSION}"
                )
        except SettingError as exc:
            raise SettingError(f"{path} cannot be used: {exc}") from exc
        special = document.pop("namespaces", None)
        return document

    settings = WebhookSettings.load(argv, read=read)
    try:
        return settings, policy_of(settings, special)
    except SettingError as exc:
        place = f"{settings.config_file}: " if settings.config_file else ""
        raise SettingError(f"{place}{exc}") from exc


def policy_of(settings: WebhookSettings, special: object = None) -> Policy:
    """What the settings come to.

    Args:
        settings: for all namespaces.
        special: what the file says under `namespaces`; None where it says nothing.

    Raises:
        SettingError: they contradict each other.
    """
    policy = Policy(
        unit=Mib(settings.memory_unit_mib),
        replicas=settings.replicas,
        dialects=frozenset(settings.dialects) - {"none"},
        compute_shares=settings.compute_shares,
        steering_env=settings.steering_env,
        env_from=settings.env_from,
        scheduler_name=settings.scheduler_name,
        runtime_class_name=settings.runtime_class_name,
        node_selector=dict(_label(text) for text in settings.node_selector),
        tolerations=tuple(map(_toleration, settings.tolerations)),
        nodes_may_be_added=settings.nodes_may_be_added,
        rules=rules_of(settings, replicas=settings.replicas),
        namespaces=() if special is None else namespace_rules(special, replicas=settings.replicas),
    )
    for entry in policy.namespaces:
        rules = policy.rules_in(entry.namespaces[0])
        check_consistent(rules, replicas=policy.replicas, where=f"namespaces {', '.join(entry.namespaces)}")
    return policy


def _label(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def _toleration(text: str) -> Toleration:
    found = TAINT.fullmatch(text)
    if found is None:
        raise SettingError(f"{shown(text)} is no taint")
    key, value, effect = found["key"], found["value"], found["effect"] or ""
    return Toleration(key, "Exists" if value is None else "Equal", value or "", effect)
