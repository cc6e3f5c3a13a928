"""What others published of the same experiment: means of seeds 42 to 51, allocated GPUs in % of all. Data.

Source: the table of results of the authors' simulator (hkust-adsl/kubernetes-scheduler-simulator) on the traces and the
1,213 GPU nodes of alibaba/clusterdata, cluster-trace-gpu-v2023. Its random numbers are Go's, so that means compare and
single seeds do not.
"""

from collections.abc import Mapping
from typing import Final

CLUSTER_GPUS: Final = 6212
"""Of the cluster that the means are of."""
NAMES: Final = ("Random", "DotProd", "Clustering", "Packing", "BestFit", "FGD")
"""Of the published policies."""
FGD_NAME: Final = NAMES[-1]
MEANS: Final[Mapping[str, tuple[float, ...]]] = {
    "default": (87.47, 90.85, 91.88, 92.00, 93.08, 95.39),
    "cpu100": (89.11, 91.95, 92.64, 92.72, 93.44, 95.35),
    "gpushare40": (86.00, 89.56, 90.02, 90.03, 91.69, 94.15),
    "multigpu30": (89.27, 93.28, 94.72, 94.87, 94.72, 96.46),
    "gpuspec33": (86.46, 89.14, 92.12, 93.22, 93.09, 94.55),
}
"""Trace -> the mean of each published policy, in the order of `NAMES`."""


def published_means(trace: str, *, gpus: int) -> Mapping[str, float]:
    """Published policy -> its mean on a trace; empty where none was published.

    Args:
        trace: its name.
        gpus: of the cluster, which has to be the published one.
    """
    return dict(zip(NAMES, MEANS[trace], strict=True)) if gpus == CLUSTER_GPUS and trace in MEANS else {}
