"""The scheduler, and how it is told to ask the extender. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

from cli.kubectl.checks.finding import Finding, fail, ok, unknown, unread, warn
from cli.kubectl.facts import Facts
from cli.kubectl.wording import listed
from fracgpu.names import RESOURCE_MEMORY, RESOURCE_REPLICA

_CHECK: Final = "scheduler configuration"
_DOCS: Final = "docs/install.md, The scheduler that you have, instead of a second one"
_DEFAULT: Final = "default-scheduler"


def check_scheduler(facts: Facts) -> Iterator[Finding]:
    """Whether a scheduler runs that asks the extender, as it has to be asked, and pods are for it."""
    check = "scheduler"
    if (missing := unread(check, facts.scheduler)) is not None:
        yield missing
    elif facts.scheduler.value is None:
        yield from _without_ours(check, facts)
    else:
        wanted, ready = facts.scheduler.value.spec.replicas, facts.scheduler.value.status.ready_replicas
        name = f"{facts.prefix}-scheduler"
        seeing = f"kubectl logs -n {facts.namespace} deployment/{name}"
        if not ready:
            yield fail(check, f"none of {wanted} pods of {name} is ready: GPU pods wait", mend=seeing)
        elif ready < wanted:
            yield warn(check, f"{ready} of {wanted} pods of {name} are ready", mend=seeing)
        else:
            yield ok(check, f"{name}, {ready} of {wanted} pods are ready")
    if (missing := unread(_CHECK, facts.scheduler_config)) is not None:
        yield missing
    elif facts.scheduler_config.value is not None:
        config, problem = _parsed(facts.scheduler_config.value.data or {})
        if config is None:
            yield fail(_CHECK, problem, mend="install the chart again")
        else:
            yield from _configuration(config)
        yield from _names(facts, served=_profiles(config) if config is not None else [])


def _without_ours(check: str, facts: Facts) -> Iterator[Finding]:
    """The chart's scheduler is not installed, so the cluster's own has to ask the extender."""
    if (missing := unread(check, facts.kube_schedulers)) is not None:
        yield missing
        return
    pods = facts.kube_schedulers.value or []
    if not pods:
        yield warn(
            check,
            f"{facts.prefix}-scheduler is not installed, and no pod of kube-scheduler can be seen in kube-system",
            mend=f"install it (scheduler.enabled), or see for yourself that your scheduler asks the extender ({_DOCS})",
        )
        return
    for pod in pods:
        words = [
            word for container in pod.spec.containers for word in (*(container.command or ()), *(container.args or ()))
        ]
        config = next((word.partition("=")[2] for word in words if word.startswith("--config=")), "")
        if config:
            found = f"{pod.metadata.name} reads {config} on its machine, which cannot be seen from here"
            yield unknown(check, f"{found}; compare it with {_DOCS}")
        else:
            yield fail(
                check,
                f"{pod.metadata.name} has no --config, so it does not ask the extender: no GPU is chosen",
                mend=f"give it one with the extender ({_DOCS}), or install the chart's (scheduler.enabled)",
            )


def _parsed(data: Mapping[str, str]) -> tuple[Mapping[str, Any] | None, str]:
    """The configuration that a ConfigMap holds, or what is wrong with that."""
    for name, text in data.items():
        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError:
            return None, f"{name} of the scheduler's ConfigMap is no YAML"
        if isinstance(found, dict) and found.get("kind") == "KubeSchedulerConfiguration":
            return found, ""
    return None, "the scheduler's ConfigMap holds no KubeSchedulerConfiguration"


def _configuration(config: Mapping[str, Any]) -> Iterator[Finding]:
    problems = problems_of(config)
    for sentence, mend in problems:
        yield fail(_CHECK, sentence, mend=mend)
    if not problems:
        (extender,) = _ours(config)
        where = _without_token(str(extender["urlPrefix"]))
        yield ok(_CHECK, f"asks {where} for both resources, never ignorable, of all nodes")


def problems_of(config: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """What is wrong with a KubeSchedulerConfiguration, and how to mend it."""
    ours = _ours(config)
    if not ours:
        return [(f"no extender manages {RESOURCE_MEMORY}", f"add fracgpu's extender ({_DOCS})")]
    if len(ours) > 1:
        return [(f"{len(ours)} extenders manage {RESOURCE_MEMORY}", "keep one of them")]
    (extender,) = ours
    problems = []
    url = str(extender.get("urlPrefix") or "")
    if not url.startswith("https://"):
        where = _without_token(url) or "empty"
        problems.append((f"urlPrefix is {where}, in plain text", "call the extender over https (docs/security.md)"))
    elif "@" not in url and not (extender.get("tlsConfig") or {}).get("certFile"):
        mend = "give it tlsConfig with certFile and keyFile, or a token in urlPrefix (docs/security.md)"
        problems.append(("tlsConfig has no client certificate, and urlPrefix no token: all verbs are refused", mend))
    for verb, why in (
        ("filterVerb", "it would not know which nodes have a GPU with room"),
        ("prioritizeVerb", "GPUs would not be packed"),
        ("bindVerb", "no GPU would be chosen or reserved"),
        ("preemptVerb", "the wrong pods would be evicted"),
    ):
        if not extender.get(verb):
            problems.append((f"{verb} is not set: {why}", f"set {verb}: {verb.removesuffix('Verb')}"))
    if extender.get("ignorable"):
        problems.append(
            ("ignorable is true: without the extender pods would be bound with no GPU chosen", "set ignorable: false")
        )
    if not extender.get("nodeCacheCapable"):
        problems.append(
            ("nodeCacheCapable is not true: whole Nodes are sent, 10 KB each", "set nodeCacheCapable: true")
        )
    managed = {str(entry.get("name")): entry for entry in extender.get("managedResources") or ()}
    for resource in (RESOURCE_MEMORY, RESOURCE_REPLICA):
        if resource not in managed:
            problems.append(
                (f"{resource} is not in managedResources: pods that ask for it bypass the extender", "add it")
            )
        elif managed[resource].get("ignoredByScheduler"):
            problems.append(
                (f"{resource} is ignoredByScheduler: nodes without GPUs are candidates too", "set it to false")
            )
    percentage = config.get("percentageOfNodesToScore")
    if percentage != 100:
        problems.append(
            (
                f"percentageOfNodesToScore is {'not set' if percentage is None else percentage}: kube-scheduler may "
                "stop looking before it has found a node with room in one piece",
                "set percentageOfNodesToScore: 100",
            )
        )
    return problems


def _without_token(url: str) -> str:
    """The URL as it may be shown: it may carry a password."""
    scheme, _, rest = url.rpartition("://")
    host = rest.rpartition("@")[2]
    return f"{scheme}://{host}" if scheme else host


def _ours(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The extenders that manage one of our resources."""
    return [
        extender
        for extender in config.get("extenders") or ()
        if any(
            entry.get("name") in (RESOURCE_MEMORY, RESOURCE_REPLICA) for entry in extender.get("managedResources") or ()
        )
    ]


def _names(facts: Facts, *, served: Sequence[str]) -> Iterator[Finding]:
    """Whether the webhook sends pods to the scheduler that is configured."""
    check = "scheduler of GPU pods"
    if facts.webhook.value is None:
        return
    given = facts.webhook.value.setting("scheduler-name") or _DEFAULT
    if not served or given in served:
        yield ok(check, f"the webhook sends GPU pods to {given}")
    else:
        yield fail(
            check,
            f"the webhook sends GPU pods to {given}, and the scheduler with the extender is {listed(served)}",
            mend=f"give the webhook --scheduler-name={served[0]} (the chart does where scheduler.enabled)",
        )


def _profiles(config: Mapping[str, Any]) -> list[str]:
    return [str(profile.get("schedulerName") or _DEFAULT) for profile in config.get("profiles") or [{}]]
