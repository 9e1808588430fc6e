"""Text that events can carry: Avro, JSON and MessagePack take valid Unicode, Python's `str` holds more."""


def valid_text(text: str) -> str:
    r"""Return a text with what is no Unicode written out: `caf\udce9.txt`, as `os.listdir` says a name that is not UTF-8, has a backslash then."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
