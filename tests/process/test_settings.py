"""What a service is told, and how it answers when it was told wrong."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, SecretStr, field_validator

from fracgpu.errors import SettingError
from fracgpu.process.settings import ServiceSettings


class Settings(ServiceSettings):
    """A service for tests."""

    node_name: str
    """The node that we run on."""

    port: int = Field(8080, ge=0, le=65535)
    """The port to listen on; 100% configurable."""

    ratio: float = 0.5
    """A number."""

    policy: Literal["binpack", "spread"] = "binpack"
    """How nodes are scored."""

    tls_cert: Path | None = None
    """The certificate."""

    is_strict: bool = False
    """Whether to be strict."""

    password: SecretStr = SecretStr("")
    """A secret."""

    @field_validator("password")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) == 3:
            raise ValueError("it is too short")
        return value


NODE = ["--node-name", "n1"]


def test_defaults() -> None:
    settings = Settings.load(NODE)
    assert (settings.node_name, settings.port, settings.tls_cert, settings.log_level) == ("n1", 8080, None, "info")


def test_a_flag_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRACGPU_PORT", "1")
    monkeypatch.setenv("FRACGPU_RATIO", "0.25")
    monkeypatch.setenv("FRACGPU_POLICY", "")
    settings = Settings.load([*NODE, "--port=2", "--is-strict", "--tls-cert", "/tmp/c"])
    assert (settings.port, settings.ratio, settings.policy) == (2, 0.25, "binpack")
    assert (settings.is_strict, settings.tls_cert) == (True, Path("/tmp/c"))


WRONG = {
    "a whole number is asked for": (
        [*NODE, "--port", "http"],
        "--port (environment: FRACGPU_PORT) is 'http'; it must be a whole number",
    ),
    "out of bounds": (
        [*NODE, "--port", "70000"],
        "--port (environment: FRACGPU_PORT) is '70000'; it must be at most 65535",
    ),
    "no choice": (
        [*NODE, "--policy", "random"],
        "--policy (environment: FRACGPU_POLICY) is 'random'; it must be 'binpack' or 'spread'",
    ),
    "missing": ([], "--node-name (environment: FRACGPU_NODE_NAME) is missing: The node that we run on."),
    "two at once": (
        ["--ratio", "much"],
        "--node-name (environment: FRACGPU_NODE_NAME) is missing: The node that we run on.\n"
        "--ratio (environment: FRACGPU_RATIO) is 'much'; it must be a number",
    ),
    "a secret is not repeated": (
        [*NODE, "--password", "abc"],
        "--password (environment: FRACGPU_PASSWORD) is not usable; it is too short",
    ),
    "unknown flag": ([*NODE, "--colour"], "unrecognized arguments: --colour; --help lists all settings"),
    "flag cut short": ([*NODE, "--por=1"], "unrecognized arguments: --por=1; --help lists all settings"),
    "value forgotten": ([*NODE, "--port"], "argument --port: expected one argument; --help lists all settings"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings(case: str) -> None:
    argv, want = WRONG[case]
    with pytest.raises(SettingError) as caught:
        Settings.load(argv)
    assert str(caught.value) == want


def test_a_wrong_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRACGPU_IS_STRICT", "perhaps")
    with pytest.raises(SettingError, match=r"FRACGPU_IS_STRICT\) is 'perhaps'; it must be true or false"):
        Settings.load(NODE)


def test_help_shows_meaning_default_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        Settings.load(["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "A service for tests." in text
    assert "--port PORT The port to listen on; 100% configurable. (default: 8080; environment: FRACGPU_PORT)" in text
    assert "The node that we run on. (required; environment: FRACGPU_NODE_NAME)" in text
    assert "--is-strict, --no-is-strict" in text
    assert "(default: none; environment: FRACGPU_READY_FILE)" in text
