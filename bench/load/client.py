"""HTTP/1.1 by hand, so that a connection can be as idle, as slow and as rude as a scene wants; it comes from the
address that it is given, since the server counts connections by address."""

import asyncio
import json
import socket

from upstream import piece


class Answer:
    """What came: a status, its fields, what was said, and how it ended (`done`, `error`, `cut`, `none`)."""

    def __init__(self, status=0, fields=None):
        self.status, self.fields = status, fields or {}
        self.text, self.ending = "", "none"


async def connect(port, address, receive_bytes=None):
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.setblocking(False)
    sock.bind((address, 0))
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except OSError:
        sock.close()
        raise
    return await asyncio.open_connection(sock=sock, limit=receive_bytes or 1 << 16)


def request(port, wanted, key=None):
    body = json.dumps({
        "model": "mock/mock",
        "stream": True,
        "messages": [{"role": "user", "content": json.dumps(wanted)}],
    })
    key = f"authorization: Bearer {key}\r\n" if key else ""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n{key}"
    return f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()


async def read_head(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return Answer(int(head[0].split()[1]), fields)


async def read_body(reader, answer, pause_s=0.0):
    """Reads the rest, with a pause after each part."""
    if "content-length" in answer.fields:
        answer.text = (await reader.readexactly(int(answer.fields["content-length"]))).decode()
        answer.ending = "done"
        return
    said, left = [], b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        left += (await reader.readexactly(size + 2))[:-2]
        *events, left = left.split(b"\n\n")
        for event in events:
            data = event.removeprefix(b"data: ")
            if data == b"[DONE]":
                answer.ending = "done"
            elif event.startswith(b"data: "):
                value = json.loads(data)
                if "error" in value:
                    answer.ending = "error"
                said += [choice["delta"].get("content") or "" for choice in value.get("choices", [])]
        if pause_s:
            await asyncio.sleep(pause_s)
    await reader.readexactly(2)
    answer.text = "".join(said)


async def ask(port, address, wanted, key=None, **how):
    """One request on a connection of its own. An answer that breaks off is `cut`; no answer at all has status 0."""
    answer = Answer()
    try:
        reader, writer = await connect(port, address, how.get("receive_bytes"))
    except OSError:
        return answer
    try:
        writer.write(request(port, wanted, key))
        answer = await read_head(reader)
        if (stalled := how.get("stalled")) is not None:
            await stalled.wait()
        await read_body(reader, answer, how.get("pause_s", 0.0))
    except (OSError, asyncio.IncompleteReadError):
        answer.ending = "cut" if answer.status else "none"
    finally:
        writer.close()
    return answer


def whole(answer, wanted):
    """Whether this is all of the answer, its own, and ended as it should."""
    text = "".join(piece(wanted["tag"], number, wanted.get("bytes", 0)) for number in range(wanted["pieces"]))
    return (answer.status, answer.ending, answer.text) == (200, "done", text)
