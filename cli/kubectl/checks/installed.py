"""Custom resources, admission policies, and whether what runs is ready. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from cli.kubectl.checks.finding import Finding, fail, ok, unread, warn
from cli.kubectl.facts import Facts, Page, Read
from cli.kubectl.objects import Definition, Workload, wire_names
from cli.kubectl.wording import count, listed
from fracgpu.gpunodes import Gpu, GpuNodeSpec, GpuNodeStatus
from fracgpu.names import API_VERSION
from fracgpu.sharing import SharingPolicyStatus, SharingSpec

_UPGRADE: Final = "upgrade the chart, whose custom resources come with it (docs/upgrade.md)"
_POLICIES: Final = (
    "gpunodes.fracgpu.io",
    "pod-annotations.fracgpu.io",
    "binding-annotations.fracgpu.io",
    "ephemeral-containers.fracgpu.io",
)
# Name of a custom resource -> place in its schema -> what this version writes there.
_WRITTEN: Final[Mapping[str, Mapping[tuple[str, ...], type[Struct]]]] = {
    "gpunodes.fracgpu.io": {
        ("spec",): GpuNodeSpec,
        ("spec", "gpus", "items"): Gpu,
        ("status",): GpuNodeStatus,
    },
    "sharingpolicies.fracgpu.io": {("spec",): SharingSpec, ("status",): SharingPolicyStatus},
}


def check_definitions(facts: Facts) -> Iterator[Finding]:
    """Whether the custom resources are those of this version."""
    for name, read in facts.definitions.items():
        check = f"custom resource {name}"
        if (missing := unread(check, read)) is not None:
            yield missing
        elif read.value is None:
            yield fail(check, "is not installed", mend="install the chart, or apply its custom resources")
        else:
            yield _definition(check, name, read.value)


def _definition(check: str, name: str, found: Definition) -> Finding:
    version = next((version for version in found.spec.versions if version.name == API_VERSION), None)
    if version is None or not version.served:
        return fail(check, f"does not serve {API_VERSION}", mend=_UPGRADE)
    schema = (version.schema or {}).get("openAPIV3Schema", {})
    lacking = [
        ".".join([*(part for part in path if part != "items"), field])
        for path, kind in _WRITTEN[name].items()
        for field in sorted(wire_names(kind) - _properties(schema, path).keys())
    ]
    if lacking:
        return fail(check, f"is of another version: it does not know {listed(lacking)}, which is lost", mend=_UPGRADE)
    return ok(check, f"serves {API_VERSION} with all fields of this version")


def _properties(schema: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    for part in path:
        schema = schema.get("items", {}) if part == "items" else schema.get("properties", {}).get(part, {})
    found: Mapping[str, Any] = schema.get("properties", {})
    return found


def check_policies(facts: Facts) -> Iterator[Finding]:
    """Whether kube-apiserver holds what tenants and nodes may not write."""
    check = "admission policies"
    if (missing := unread(check, facts.policies, facts.bindings)) is not None:
        yield missing
        return
    there = {policy.metadata.name for policy in facts.policies.value or ()}
    bound = {
        binding.spec.policy_name
        for binding in facts.bindings.value or ()
        if "Deny" in (binding.spec.validation_actions or ())
    }
    if absent := [name for name in _POLICIES if name not in there]:
        found = f"{listed(absent)} {'is' if len(absent) == 1 else 'are'} not installed"
        yield warn(check, found, mend="install them (docs/admission.md): without them who may edit pods may edit plans")
    elif loose := [name for name in _POLICIES if name not in bound]:
        found = f"no binding makes {listed(loose)} deny anything"
        yield warn(check, found, mend="bind them with validationActions: [Deny] (docs/admission.md)")
    else:
        yield ok(check, f"{count(len(_POLICIES), 'policy').replace('policys', 'policies')} installed and bound")


def check_running(facts: Facts) -> Iterator[Finding]:
    """Whether webhook, extender and Redis run, and what they say of themselves."""
    yield _workload(facts, "webhook", facts.webhook, without="GPU pods cannot be created")
    yield from _readiness("webhook", facts.readiness.get("webhook", Read()), log=_log(facts, "webhook"))
    yield _workload(facts, "extender", facts.extender, without="GPU pods wait")
    yield from _readiness("extender", facts.readiness.get("extender", Read()), log=_log(facts, "extender"))
    if facts.redis.value is not None:
        yield _workload(facts, "redis", facts.redis, without="GPU pods wait")
    yield from _ledger(facts)


def _workload(facts: Facts, part: str, read: Read[Workload], *, without: str) -> Finding:
    check = f"{part} pods"
    if (missing := unread(check, read)) is not None:
        return missing
    if read.value is None:
        return fail(
            check,
            f"{facts.prefix}-{part} does not exist in {facts.namespace}",
            mend="install the chart, or name its namespace with -n",
        )
    wanted, ready = read.value.spec.replicas, read.value.status.ready_replicas
    seeing = f"kubectl describe pods -n {facts.namespace} -l app.kubernetes.io/name={facts.prefix}-{part}"
    if not ready:
        return fail(check, f"none of {wanted} is ready: {without}", mend=seeing)
    if ready < wanted:
        return warn(check, f"{ready} of {wanted} are ready", mend=seeing)
    return ok(check, f"{ready} of {wanted} are ready")


def _readiness(part: str, read: Read[Page], *, log: str) -> Iterator[Finding]:
    """What the service answers when it is asked; nothing where it does not exist, which its pods' line says."""
    check = f"{part} readiness"
    if (missing := unread(check, read, mend=log)) is not None:
        yield missing
    elif read.value is not None and read.value.problem:
        yield fail(check, f"says: {read.value.problem}", mend="docs/operations.md, When a part is away")
    elif read.value is not None:
        yield ok(check, f"says {read.value.text.strip() or 'nothing'}")


def _log(facts: Facts, part: str) -> str:
    """How to see what a part says where it cannot be asked; empty where nothing of it is known to be there."""
    there: Mapping[str, Read[Workload]] = {"webhook": facts.webhook, "extender": facts.extender}
    if there[part].value is None:
        return ""
    return f"kubectl logs -n {facts.namespace} -l app.kubernetes.io/name={facts.prefix}-{part} --tail=20"


def _ledger(facts: Facts) -> Iterator[Finding]:
    """What the extender knows of Redis."""
    check = "ledger in Redis"
    if (missing := unread(check, facts.metrics, mend=_log(facts, "extender"))) is not None:
        yield missing
        return
    page = facts.metrics.value
    if page is None:
        return
    if page.problem:
        yield fail(
            check, f"the extender's metrics say: {page.problem}", mend="see the line of the extender's readiness"
        )
        return
    state = next((state for state, value in series(page.text, "fracgpu_extender_ledger_state", "state") if value), "")
    if state in ("", "valid"):
        yield ok(check, "valid" if state else "the extender does not say; it is ready")
    else:
        yield fail(check, f"the extender says it is {state}", mend="docs/operations.md, Redis")
    if overdrawn := sum(value for _, value in series(page.text, "fracgpu_extender_overdrawn_gpus", "")):
        yield fail(
            "overdrawn GPUs",
            f"more is taken of {count(int(overdrawn), 'GPU')} than they have",
            mend="the extender's log names them; they take nothing more until pods there have ended",
        )


def series(text: str, name: str, label: str) -> Iterator[tuple[str, float]]:
    """The values of a metric in Prometheus' text form, each with the value of a label; empty for one without it."""
    for line in text.splitlines():
        head, _, value = line.rpartition(" ")
        found, _, labels = head.partition("{")
        if found != name:
            continue
        _, _, rest = labels.partition(f'{label}="')
        yield (rest.partition('"')[0] if label else ""), float(value)
