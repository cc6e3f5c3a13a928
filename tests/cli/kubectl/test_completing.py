"""What TAB offers: what is meant by a line, and what kubectl is told."""

from pathlib import Path

import pytest

from cli.kubectl import completing
from cli.kubectl.completing import Wanted, wanted_of
from cli.kubectl.flags import Where


@pytest.mark.parametrize(
    ("words", "want"),
    [
        ([""], Wanted("commands", "")),
        (["to"], Wanted("commands", "to")),
        (["-"], Wanted("flags", "-")),
        (["top", ""], Wanted("nodes", "", "top")),
        (["top", "node-1", "n"], Wanted("nodes", "n", "top", ("node-1",))),
        (["top", "-w", "n"], Wanted("nodes", "n", "top")),
        (["pods", "-n", "te"], Wanted("namespaces", "te", "pods")),
        (["pods", "--namespace=te"], Wanted("namespaces", "te", "pods")),
        (["pods", "-n", "team-a", ""], Wanted("pods", "", "pods", (), Where(namespace="team-a"))),
        (
            ["explain", "--namespace=b", "--context", "c", "--kubeconfig=/k", "x"],
            Wanted("pods", "x", "explain", (), Where(Path("/k"), "c", "b")),
        ),
        (["explain", "chat", ""], Wanted("nothing", "", "explain", ("chat",))),
        (["pods", "-o", ""], Wanted("outputs", "", "pods")),
        (["pods", "--output=y"], Wanted("outputs", "y", "pods")),
        (["pods", "--kubeconfig", "/et"], Wanted("files", "/et", "pods")),
        (["top", "--context", ""], Wanted("contexts", "", "top")),
        (["pods", "--al"], Wanted("flags", "--al", "pods")),
        (["pods", "--no-such="], Wanted("nothing", "", "pods")),
        (["pods", "-A=x"], Wanted("nothing", "x", "pods")),
        (["doctor", ""], Wanted("nothing", "", "doctor")),
    ],
)
def test_a_line_is_understood(words: list[str], want: Wanted) -> None:
    assert wanted_of(words) == want


def answers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    monkeypatch.setattr("sys.argv", ["kubectl_complete-fracgpu", *words])
    completing.main()
    found = capsys.readouterr()
    assert found.err == ""
    return found.out.splitlines()


@pytest.mark.parametrize(
    ("words", "want"),
    [
        (("p",), ["pods\tShow the pods that ask for GPUs.", ":4"]),
        (
            ("",),
            [
                "top\tShow nodes and their GPUs.",
                "pods\tShow the pods that ask for GPUs.",
                "explain\tSay why a pod waits, or what it has.",
                "doctor\tCheck the installation.",
                ":4",
            ],
        ),
        (("pods", "-o", ""), ["table", "wide", "json", "yaml", ":4"]),
        (("pods", "--output=j"), ["json", ":4"]),
        (("pods", "--all"), ["--all-namespaces\tOf all namespaces.", ":4"]),
        (("pods", "--kubeconfig", "/etc/"), [":0"]),  # files: the shell knows them
        (("pods", "-n", ""), [":4"]),  # no cluster: no candidates, and not a word
        ((), ["top\tShow nodes and their GPUs."]),
    ],
)
def test_kubectl_is_told(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: tuple[str, ...],
    want: list[str],
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))

    assert answers(capsys, monkeypatch, *words)[: len(want)] == want
