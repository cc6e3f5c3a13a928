"""The chart of deploy/helm, rendered and installed as Helm does it: the only module that knows by which library.

Objects come back as they would be sent to kube-apiserver, in the order of the templates' paths; hooks are among them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import helm_python as helm
import yaml

CHART: Final = Path(__file__).parents[2] / "deploy" / "helm" / "fracgpu"
VALUES: Final = tuple(sorted(path.stem for path in (CHART / "ci").glob("*.yaml")))
"""The files of values that come with the chart as examples."""
NAMESPACE: Final = "fracgpu-system"
RELEASE: Final = "fracgpu"

Manifest = dict[str, Any]
Values = Mapping[str, Any]


class ChartError(Exception):
    """Helm refuses the values, or a template does; the message is what a user would see."""


def values_of(name: str) -> dict[str, Any]:
    """One of the files of values in the chart's folder ci/."""
    values: dict[str, Any] = yaml.safe_load((CHART / "ci" / f"{name}.yaml").read_text()) or {}
    return values


def rendered(values: Values, *, namespace: str = NAMESPACE) -> dict[str, str]:
    """Template's path in the chart -> what it comes to; templates that come to nothing are left out.

    Raises:
        ChartError: the values are refused.
    """
    try:
        with helm.Chart.load(CHART) as chart:
            texts = chart.render(dict(values), name=RELEASE, namespace=namespace)
    except helm.HelmError as exc:
        raise ChartError(str(exc)) from exc
    found = {path.partition("/templates/")[2]: text for path, text in texts.items()}
    return {path: text for path, text in sorted(found.items()) if text.strip()}


def notes(values: Values) -> str:
    """What Helm prints after an installation."""
    return rendered(values)["NOTES.txt"]


def manifests(values: Values, *, namespace: str = NAMESPACE) -> list[Manifest]:
    """All objects of a release."""
    return [manifest for _, manifest in by_template(values, namespace=namespace)]


def by_template(values: Values, *, namespace: str = NAMESPACE) -> list[tuple[str, Manifest]]:
    """All objects of a release, each with the path of its template."""
    return [
        (path, manifest)
        for path, text in rendered(values, namespace=namespace).items()
        if path.endswith(".yaml")
        for manifest in yaml.safe_load_all(text)
        if manifest
    ]


def complaints(values: Values) -> list[str]:
    """What `helm lint --strict` finds: warnings and errors."""
    report = helm.lint(CHART, dict(values), strict=True, namespace=NAMESPACE)
    found = [f"{message['path']}: {message['error']}" for message in report["messages"] if message["severity"] >= 2]
    return [*found, *report["errors"]]


class Release:
    """The chart in a cluster, by `helm install`, `upgrade` and `uninstall`; nothing is waited for.

    Args:
        kubeconfig: of somebody who may do everything.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._config = helm.Config(kubeconfig_path=kubeconfig, namespace=NAMESPACE)

    def install(self, values: Values) -> None:
        with helm.Chart.load(CHART) as chart:
            self._config.install(chart, RELEASE, dict(values), namespace=NAMESPACE)

    def upgrade(self, values: Values) -> None:
        with helm.Chart.load(CHART) as chart:
            self._config.upgrade(chart, RELEASE, dict(values), namespace=NAMESPACE)

    def uninstall(self) -> None:
        self._config.uninstall(RELEASE, ignore_not_found=True)

    def close(self) -> None:
        self._config.close()
