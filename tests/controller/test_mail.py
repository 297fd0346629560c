"""Mail to a real SMTP server on this machine, with what it says and what is said when it says no."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy

import pytest

from graylift.adapters.notifier import OutsideNotifier
from graylift.adapters.posts import Posts
from graylift.domain.notices import Email, Notice, Secret
from graylift.errors import NotTold


@dataclass
class MailServer:
    """SMTP as far as a sender needs it. `answer`: to the message itself."""

    port: int = 0
    answer: str = "250 taken"
    said: list[str] = field(default_factory=list[str])
    messages: list[bytes] = field(default_factory=list[bytes])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(line: str) -> None:
            writer.write(line.encode() + b"\r\n")

        say("220 here")
        while line := (await reader.readline()).decode().strip():
            self.said.append(line)
            match line.split()[0].upper():
                case "EHLO":
                    say("250-here\r\n250 AUTH PLAIN")
                case "DATA":
                    say("354 go on")
                    self.messages.append((await reader.readuntil(b"\r\n.\r\n"))[:-5])
                    say(self.answer)
                case "AUTH":
                    say("235 welcome")
                case "QUIT":
                    say("221 bye")
                    break
                case _:
                    say("250 fine")
        writer.close()


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    made = MailServer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    await server.wait_closed()


@pytest.fixture
async def notifier() -> AsyncIterator[OutsideNotifier]:
    posts = Posts()
    yield OutsideNotifier(posts)
    await posts.close()


def notice(email: Email) -> Notice:
    text = "FAIL: errors 27.8 % against 0.0 %\r\nBcc: everybody@example.com"
    return Notice(7, 0, email, "tiny-1", "tiny", "v2", "v1", 1_772_366_400.0, "ROLLED_BACK", text, "graylift")


async def test_a_rollback_is_told_by_mail(mail: MailServer, notifier: OutsideNotifier) -> None:
    to = ("ops@example.com", "ana@example.com")
    await notifier.tell(notice(Email(to, "graylift@example.com", "127.0.0.1", mail.port)))
    (got,) = (message_from_bytes(raw, policy=policy.default) for raw in mail.messages)
    assert got["Subject"] == "tiny-1 ROLLED_BACK (v1 to v2)"
    assert got["To"] == "ops@example.com, ana@example.com"
    assert got["Bcc"] is None
    assert "errors 27.8 %" in got.get_content()
    assert sum(line.upper().startswith("RCPT TO") for line in mail.said) == 2


async def test_a_server_that_refuses_is_named_and_the_password_is_not(
    mail: MailServer, notifier: OutsideNotifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAYLIFT_SECRET_MAIL", "hunter2")
    mail.answer = "554 hunter2 is no good"
    email = Email(
        ("ops@example.com",), "g@example.com", "127.0.0.1", mail.port, "graylift", Secret("GRAYLIFT_SECRET_MAIL")
    )
    with pytest.raises(NotTold, match=f"127.0.0.1:{mail.port} answers 554") as caught:
        await notifier.tell(notice(email))
    assert any(line.startswith("AUTH PLAIN") for line in mail.said)
    assert "hunter2" not in str(caught.value)


async def test_a_server_that_is_away_is_said(notifier: OutsideNotifier, unused_tcp_port: int) -> None:
    email = Email(("ops@example.com",), "g@example.com", "127.0.0.1", unused_tcp_port)
    with pytest.raises(NotTold, match=r"cannot be used: ConnectionRefusedError"):
        await notifier.tell(notice(email))
