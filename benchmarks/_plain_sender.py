"""A sender as one would write it with well-known libraries: one JSON record per message in, one per result out.

The baseline of ``sender.py``: aiokafka, ``email.message.EmailMessage``, dkimpy with RSA-2048, aiosmtplib with
connections that are kept, on uvloop.  It does less than ours: no ledger of intents and results, no gate that a decision
can close, no suppressions, no retries, no signed return path, and a connection is never renewed.
"""

import asyncio
import json
import os
import time
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formataddr, formatdate
from typing import Any

import aiosmtplib
import dkim
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

RESULTS = "plain.results"

_SIGNED = [b"from", b"to", b"subject", b"date", b"message-id", b"mime-version", b"content-type", b"list-id"]
Queue = asyncio.Queue[bytes]


class Sender:
    """Sends over one connection per worker."""

    def __init__(
        self, producer: AIOKafkaProducer, templates: dict[str, dict[str, str]], key: bytes, host: str, port: int
    ) -> None:
        self._producer = producer
        self._templates = templates
        self._key = key
        self._host = host
        self._port = port

    async def work(self, queue: Queue) -> None:
        """Send what is in the queue, one message after the other, for ever."""
        client = aiosmtplib.SMTP(hostname=self._host, port=self._port, local_hostname="mta.shop.example")
        await client.connect(start_tls=False)
        while True:
            await self._send(client, json.loads(await queue.get()))
            queue.task_done()

    async def _send(self, client: aiosmtplib.SMTP, message: dict[str, Any]) -> None:
        began = time.time()
        sender = f"bounces+{message['message_id']}@bounces.shop.example"
        data = self._signed(self._built(message))
        result = {"campaign": message["campaign"], "message_id": message["message_id"], "outcome": "accepted"}
        try:
            _, text = await client.sendmail(sender, [message["address"]], data)
            result |= {"code": 250, "text": text}
        except aiosmtplib.SMTPResponseException as refused:
            result |= {"outcome": "bounced", "code": refused.code, "text": refused.message}
        now = time.time()
        result |= {"at": int(now * 1000), "took_ms": int((now - began) * 1000)}
        await self._producer.send(RESULTS, json.dumps(result).encode(), message["campaign"].encode())

    def _built(self, message: dict[str, Any]) -> bytes:
        template, values = self._templates[message["content"]], message["vars"]
        mail = EmailMessage(policy=SMTP)
        mail["From"] = formataddr(("The Shop", "news@shop.example"))
        mail["To"] = message["address"]
        mail["Subject"] = _filled(template["subject"], values)
        mail["Date"] = formatdate()
        mail["Message-ID"] = f"<{message['message_id']}@shop.example>"
        mail["List-Id"] = template["list_id"]
        mail["Precedence"] = "bulk"
        mail.set_content(_filled(template["text"], values))
        return mail.as_bytes()

    def _signed(self, data: bytes) -> bytes:
        signature: bytes = dkim.sign(data, b"bench", b"shop.example", self._key, include_headers=_SIGNED)
        return signature + data


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    return text


async def main() -> None:
    """Consume, send, publish, commit."""
    options = json.loads(os.environ["PLAIN_SENDER"])
    producer = AIOKafkaProducer(bootstrap_servers=options["kafka"], linger_ms=5)
    consumer = AIOKafkaConsumer(
        options["topic"],
        bootstrap_servers=options["kafka"],
        group_id=options["group"],
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await producer.start()
    await consumer.start()
    sender = Sender(producer, options["templates"], options["key"].encode(), "127.0.0.1", options["port"])
    queue: Queue = asyncio.Queue(1000)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(options["connections"]):
            tasks.create_task(sender.work(queue))
        while True:
            taken = await consumer.getmany(timeout_ms=200)
            for records in taken.values():
                for record in records:
                    await queue.put(record.value)
            if taken:
                await queue.join()
                await producer.flush()
                await consumer.commit()


if __name__ == "__main__":
    uvloop.run(main())
