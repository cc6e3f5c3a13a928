"""Prometheus' text format, as far as the large gauges need it. Pure."""


def head(name: str, text: str) -> str:
    """What stands before a gauge's samples; `text` is one line."""
    return f"# HELP {name} {text}\n# TYPE {name} gauge\n"


def escaped(value: str) -> str:
    """A label's value as it stands between quotes."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
