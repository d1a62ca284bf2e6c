"""A vendor that speaks OpenAI's chat streams and does what the prompt says; it counts what it could send.

The last message is JSON: `tag` is said in every piece, `pieces` of them come, of at least `bytes` each; with `gate` the
answer stops after its first piece until that gate is opened.
"""

import asyncio
import json


class Upstream:
    def __init__(self):
        self.gates = {}
        self.arrived = {}
        self.sent_bytes = {}
        self.broken = 0
        self.port = 0

    async def start(self):
        server = await asyncio.start_server(self.connection, "127.0.0.1", 0, backlog=4096, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]

    def gate(self, name):
        return self.gates.setdefault(name, asyncio.Event())

    async def until_arrived(self, name, count, limit_s):
        """Waits until so many answers of a gate have begun."""
        async with asyncio.timeout(limit_s):
            while self.arrived.get(name, 0) < count:
                await asyncio.sleep(0.02)

    async def connection(self, reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.lower().split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:-2])
                body = json.loads(await reader.readexactly(int(fields["content-length"])))
                await self.answer(writer, json.loads(body["messages"][-1]["content"]))
        except (asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # who asked is done, or the run is
        except OSError:
            self.broken += 1  # who asked left in the middle of an answer
        finally:
            writer.close()

    async def answer(self, writer, wanted):
        group = wanted.get("gate") or wanted["tag"]
        self.arrived[group] = self.arrived.get(group, 0) + 1
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        for number in range(wanted["pieces"]):
            text = piece(wanted["tag"], number, wanted.get("bytes", 0))
            await self.send(writer, group, {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})
            if number == 0 and wanted.get("gate"):
                await self.gate(wanted["gate"]).wait()
        usage = {"prompt_tokens": 9, "completion_tokens": wanted["pieces"], "total_tokens": 9 + wanted["pieces"]}
        await self.send(writer, group, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        await self.send(writer, group, {"choices": [], "usage": usage})
        await self.send(writer, group, None)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def send(self, writer, group, value):
        if value is not None:
            value = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "mock", **value}
        event = f"data: {'[DONE]' if value is None else json.dumps(value)}\n\n".encode()
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        await writer.drain()
        self.sent_bytes[group] = self.sent_bytes.get(group, 0) + len(event)


def piece(tag, number, least_bytes):
    """What is said in one piece: no two answers share one."""
    text = f"{tag}.{number} "
    return text + "x" * max(0, least_bytes - len(text))
