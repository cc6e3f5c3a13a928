"""The webhook's registrations, and the certificates of all parts: who trusts whom, and for how long. Pure."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from cli.kubectl.checks.finding import Finding, fail, ok, unread, warn
from cli.kubectl.facts import REGISTRATION, Facts, Read
from cli.kubectl.objects import Hook, Registration, Secret
from cli.kubectl.wording import listed
from webhook.certificates.pairs import CertificateError, Pair, read_bundle, read_pair
from webhook.certificates.renewing import AUTHORITIES, CHAIN, KEY, is_overdue

_SOON: Final = timedelta(days=14)
_REGISTER: Final = "install the chart (docs/install.md)"
_RENEW: Final = "see why it was not renewed (docs/operations.md), or make a new one"


def check_registrations(facts: Facts) -> Iterator[Finding]:
    """Whether kube-apiserver asks the webhook, and about what."""
    yield from _registration("MutatingWebhookConfiguration", facts.mutating, wanted_policy="Fail")
    yield from _registration("ValidatingWebhookConfiguration", facts.validating, wanted_policy="Ignore")


def _registration(kind: str, read: Read[Registration], *, wanted_policy: str) -> Iterator[Finding]:
    check = "webhook registration" if wanted_policy == "Fail" else "webhook registration for workloads"
    if (missing := unread(check, read)) is not None:
        yield missing
        return
    hooks = read.value.webhooks or () if read.value is not None else ()
    if not hooks:
        found = f"there is no {kind} {REGISTRATION}"
        if wanted_policy == "Fail":
            yield fail(check, f"{found}: annotations are not read, and pods get no GPU", mend=_REGISTER)
        else:
            yield warn(check, f"{found}: mistakes in workloads are told only when their pods are made", mend=_REGISTER)
        return
    problems = [sentence for hook in hooks for sentence in _problems(hook, wanted_policy=wanted_policy)]
    if problems:
        yield warn(check, listed(problems), mend=f"apply the {kind} of this version again ({_REGISTER})")
    else:
        yield ok(
            check, f"{listed([hook.name for hook in hooks])}, failurePolicy {wanted_policy}, only GPU pods are sent"
        )


def _problems(hook: Hook, *, wanted_policy: str) -> Iterator[str]:
    if hook.failure_policy != wanted_policy:
        why = (
            "GPU pods are let in unread while it is away" if wanted_policy == "Fail" else "its outage is one of others"
        )
        yield f"failurePolicy of {hook.name} is {hook.failure_policy or 'not set'}: {why}"
    if not hook.match_conditions:
        yield f"{hook.name} has no matchConditions: all pods depend on it"


def check_certificates(facts: Facts, *, now: datetime) -> Iterator[Finding]:
    """Whether every certificate is in force, and those who call trust it."""
    yield from _webhook(facts, now=now)
    for part in ("extender", "scheduler", "plugin"):
        check, read = f"certificate of the {part}", facts.secrets.get(part, Read())
        if (missing := unread(check, read)) is not None:
            yield missing
        elif read.value is not None:
            yield _in_force(check, read.value, now=now)
    yield from _of_redis(facts, now=now)
    yield from _mutual(facts)


def _of_redis(facts: Facts, *, now: datetime) -> Iterator[Finding]:
    """The certificate that nobody reads again: what is in the Secret need not be what Redis shows."""
    check, read = "certificate of Redis", facts.secrets.get("redis", Read())
    if facts.redis.value is None:
        return
    if (missing := unread(check, read)) is not None:
        yield missing
    elif read.value is not None:
        found = _in_force(check, read.value, now=now)
        restart = f"kubectl rollout restart statefulset -n {facts.namespace} {facts.prefix}-redis"
        if found.mend:
            yield Finding(check, found.status, found.found, f"{found.mend}; then restart the StatefulSet: {restart}")
        else:
            yield ok(check, f"{found.found}; Redis reads it when it starts: restart the StatefulSet after renewing")


def _webhook(facts: Facts, *, now: datetime) -> Iterator[Finding]:
    check = "certificate of the webhook"
    read = facts.secrets.get("webhook", Read())
    hooks = [
        hook
        for registration in (facts.mutating, facts.validating)
        for hook in (registration.value.webhooks or () if registration.value is not None else ())
    ]
    if without := [hook.name for hook in hooks if not read_bundle(hook.client_config.pem)]:
        yield fail(
            check,
            f"caBundle of {listed(without)} is empty or unreadable: kube-apiserver cannot call the webhook",
            mend="the webhook writes it once it runs (--tls-secret, --tls-ca); its log says why it does not",
        )
        return
    if (missing := unread(check, read)) is not None:
        yield missing
        return
    if read.value is None or not read.value.content(CHAIN):
        if hooks:
            yield fail(check, "there is none yet", mend="the webhook makes it when it starts; see its log")
        return
    found = _in_force(check, read.value, now=now)
    pair = _pair(read.value)
    distrusting = [hook.name for hook in hooks if pair and not pair.leads_to(read_bundle(hook.client_config.pem))]
    names = {hook.client_config.server_name for hook in hooks}
    if distrusting:
        found = fail(
            check,
            f"caBundle of {listed(distrusting)} does not verify it: kube-apiserver refuses the webhook, and GPU pods",
            mend="with --tls-secret the webhook puts it right within seconds; else see cert-manager's CA injector",
        )
    elif pair and (strange := sorted(name for name in names if name and not pair.is_for(name))):
        found = fail(
            check,
            f"it is for {listed(sorted(pair.names))}, and kube-apiserver calls {listed(strange)}",
            mend="give the webhook that name with --tls-names, or your issuer",
        )
    yield found


def _in_force(check: str, secret: Secret, *, now: datetime) -> Finding:
    try:
        pair = read_pair(chain=secret.content(CHAIN), key=secret.content(KEY))
    except CertificateError as exc:
        return fail(check, f"the Secret {secret.metadata.name} cannot be used: {exc}", mend="make it anew")
    until = f"{pair.expires:%Y-%m-%d %H:%M} UTC"
    if now >= pair.expires:
        return fail(check, f"it ended at {until}", mend=_RENEW)
    if now < pair.leaf.not_valid_before_utc:
        return fail(
            check, f"it begins at {pair.leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC", mend="compare the clocks"
        )
    if pair.expires - now < _SOON and is_overdue(pair, now=now):
        return warn(check, f"it ends at {until}, and should have been renewed", mend=_RENEW)
    return ok(check, f"in force until {until}")


def _mutual(facts: Facts) -> Iterator[Finding]:
    """Whether scheduler and extender trust each other."""
    check = "scheduler and extender trust each other"
    nothing: Read[Secret] = Read()
    scheduler, extender = (facts.secrets.get(part, nothing).value for part in ("scheduler", "extender"))
    if scheduler is None or extender is None:
        return
    for caller, called, what in (
        (scheduler, extender, "the extender's CA does not verify the scheduler's certificate: all verbs are refused"),
        (extender, scheduler, "the scheduler's CA does not verify the extender's certificate: it cannot be called"),
    ):
        pair = _pair(caller)
        if pair is not None and not pair.leads_to(read_bundle(called.content(AUTHORITIES))):
            mend = f"make both of one CA: {caller.metadata.name} and {called.metadata.name} (certificates in the chart)"
            yield fail(check, what, mend=mend)
            return
    yield ok(check, "each one's CA verifies the other's certificate")


def _pair(secret: Secret) -> Pair | None:
    try:
        return read_pair(chain=secret.content(CHAIN), key=secret.content(KEY))
    except CertificateError:
        return None
