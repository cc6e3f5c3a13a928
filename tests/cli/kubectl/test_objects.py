"""What the plugin reads of the API server's objects."""

import msgspec

from cli.kubectl.objects import Workload
from tests.cli.kubectl.installation import pem_secret


def test_settings_are_read_from_flags_and_variables() -> None:
    found = msgspec.convert(
        {
            "metadata": {"name": "x"},
            "spec": {
                "template": {
                    "spec": {
                        "containers": [
                            {"args": ["extender", "--port", "8080", "--policy=spread"]},
                            {"env": [{"name": "FRACGPU_MEMORY_UNIT_MIB", "value": "256"}]},
                        ]
                    }
                }
            },
        },
        Workload,
    )

    assert [found.setting(flag) for flag in ("port", "policy", "memory-unit-mib", "replicas")] == [
        *("8080", "spread", "256"),
        None,
    ]


def test_a_secret_does_not_show_its_values() -> None:
    assert repr(pem_secret("s", "x")) == "Secret('s')"
