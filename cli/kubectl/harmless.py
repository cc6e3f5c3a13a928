"""Text of others, for a terminal: a name or a message may hold characters that a terminal obeys. Pure.

A stolen node writes what it likes into its GPUNode, and a tenant into pods and events. Left out: programs, which get
all of it to the letter (`printing.show_data`).
"""


def harmless_text(text: str) -> str:
    """The same with as many characters, of which none is an order.

    Control characters, and those that change the direction of writing or are not seen, become U+FFFD; newlines, tabs
    and other white space become spaces.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in text)
