"""The parts of a Kubernetes PodDisruptionBudget that fracgpu reads, and which pods it covers (policy/v1).

As kube-scheduler reads them when it counts what an eviction would violate: a budget with an empty selector, or with
one that cannot be, covers nothing. How many disruptions are allowed is computed by Kubernetes and only read here.
"""

from collections.abc import Mapping

from msgspec import Struct

from fracgpu.pods import ObjectMeta, Pod


class _K8s(Struct, frozen=True, rename="camel", gc=False):
    """Kubernetes' JSON spelling for Python's field names."""


class LabelRequirement(_K8s, frozen=True):
    """metav1.LabelSelectorRequirement."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None

    @property
    def is_valid(self) -> bool:
        """Whether the operator is known and has values where it needs some, and none where it takes none."""
        if self.operator in ("In", "NotIn"):
            return bool(self.values)
        return self.operator in ("Exists", "DoesNotExist") and not self.values

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy it."""
        if self.operator == "Exists":
            return self.key in labels
        if self.operator == "DoesNotExist":
            return self.key not in labels
        # NotIn is also true of what has no such label.
        return (labels.get(self.key) in (self.values or ())) is (self.operator == "In")


class LabelSelector(_K8s, frozen=True):
    """metav1.LabelSelector."""

    match_labels: dict[str, str] | None = None
    match_expressions: tuple[LabelRequirement, ...] | None = None

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy all of it; false for a selector that is empty or cannot be."""
        wanted, requirements = self.match_labels or {}, self.match_expressions or ()
        if not wanted and not requirements:
            return False
        if not all(requirement.is_valid for requirement in requirements):
            return False
        return all(labels.get(key) == value for key, value in wanted.items()) and all(
            requirement.matches(labels) for requirement in requirements
        )


class PodDisruptionBudgetSpec(_K8s, frozen=True):
    """policy/v1 PodDisruptionBudgetSpec."""

    selector: LabelSelector | None = None


class PodDisruptionBudgetStatus(_K8s, frozen=True):
    """policy/v1 PodDisruptionBudgetStatus; `disrupted_pods` are names of pods whose eviction is counted already."""

    disruptions_allowed: int = 0
    disrupted_pods: dict[str, object] | None = None


class PodDisruptionBudget(_K8s, frozen=True):
    """policy/v1 PodDisruptionBudget."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodDisruptionBudgetSpec = PodDisruptionBudgetSpec()
    status: PodDisruptionBudgetStatus = PodDisruptionBudgetStatus()

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def disruptions_allowed(self) -> int:
        """How many of its pods may be evicted now."""
        return self.status.disruptions_allowed

    def selects(self, pod: Pod) -> bool:
        """Whether the budget is about a pod with this namespace and these labels."""
        labels = pod.metadata.labels
        return (
            pod.metadata.namespace == self.metadata.namespace
            and bool(labels)  # kube-scheduler: a pod without labels is in no budget, whatever the selector
            and self.spec.selector is not None
            and self.spec.selector.matches(labels or {})
        )

    def covers(self, pod: Pod) -> bool:
        """Whether the eviction of a pod would use up one of the disruptions that it allows."""
        return self.selects(pod) and pod.metadata.name not in (self.status.disrupted_pods or {})
