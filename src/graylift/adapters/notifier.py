"""ports.Notifier: webhooks, Slack-compatible ones, and mail through an SMTP server.

Called by the controller through the port. What is said of a failure holds no secret.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from ipaddress import ip_address
from typing import assert_never

from graylift.adapters.posts import Posts, Unanswered, value_of
from graylift.domain.notices import Email, Notice, Slack, Webhook
from graylift.errors import NotTold

TIMEOUT_S = 10.0
_REFUSED_FOR_GOOD = (400, 413, 422)
"""They are about this message. All else (a wrong address or key, too many) somebody can mend meanwhile."""
_IMPLICIT_TLS = 465


class OutsideNotifier:
    """Posts through `posts`, which somebody else closes."""

    def __init__(self, posts: Posts) -> None:
        self._posts = posts

    async def tell(self, notice: Notice) -> None:
        """See `ports.Notifier`."""
        try:
            match notice.receiver:
                case Webhook() as webhook:
                    told = self._posts.post(
                        webhook.url, fields_of(notice), TIMEOUT_S, signing_key=webhook.signing_key, key=notice.id
                    )
                    _expect_taken(*await told)
                case Slack() as slack:
                    _expect_taken(*await self._posts.post(slack.hook, {"text": slack_text(notice)}, TIMEOUT_S))
                case Email() as email:
                    password = None if email.password is None else value_of(email.password)
                    await asyncio.to_thread(_mail, email, message_of(email, notice), password)
                case _:
                    assert_never(notice.receiver)
        except Unanswered as why:
            raise NotTold(str(why)) from None


def _expect_taken(status: int, _: bytes) -> None:
    if not 200 <= status < 300:
        raise NotTold(f"it answers HTTP {status}", for_good=status in _REFUSED_FOR_GOOD)


def fields_of(notice: Notice) -> dict[str, object]:
    """The body of a generic webhook. `docs/operations.md` tells of each field."""
    return {
        "id": notice.id,
        "at": datetime.fromtimestamp(notice.at_s, UTC).isoformat(timespec="milliseconds"),
        "service": notice.service,
        "release": notice.release_id,
        "candidate": notice.candidate,
        "stable": notice.stable,
        "kind": notice.kind,
        "text": notice.text,
        "by": notice.by,
    }


def slack_text(notice: Notice) -> str:
    """Slack's own three escapes, so that no text can call people or hide a link."""
    text = f"{notice.text} ({notice.by})".replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"*{notice.release_id} {notice.kind}* ({notice.stable} to {notice.candidate}): {text}"


def message_of(email: Email, notice: Notice) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"] = email.sender, ", ".join(email.to)
    message["Subject"] = f"{notice.release_id} {notice.kind} ({notice.stable} to {notice.candidate})"
    message["Message-ID"] = f"<{notice.id}.{int(notice.at_s * 1000)}@graylift>"
    message["Date"] = datetime.fromtimestamp(notice.at_s, UTC)
    message.set_content(f"{notice.text}\n\nby {notice.by}, {datetime.fromtimestamp(notice.at_s, UTC):%F %T} UTC\n")
    return message


def _mail(email: Email, message: EmailMessage, password: str | None) -> None:
    """Over TLS, except to a server on this machine that offers none."""
    secure = ssl.create_default_context()
    try:
        if email.port == _IMPLICIT_TLS:
            server: smtplib.SMTP = smtplib.SMTP_SSL(email.host, email.port, timeout=TIMEOUT_S, context=secure)
        else:
            server = smtplib.SMTP(email.host, email.port, timeout=TIMEOUT_S)
        with server:
            if email.port != _IMPLICIT_TLS and not _is_loopback(email.host):
                server.starttls(context=secure)
            if email.user is not None and password is not None:
                server.login(email.user, password)
            server.send_message(message)
    except smtplib.SMTPResponseException as error:
        # Its text may quote what was sent.
        raise NotTold(f"{email.host}:{email.port} answers {error.smtp_code}") from None
    except (smtplib.SMTPException, OSError) as error:
        raise NotTold(f"{email.host}:{email.port} cannot be used: {type(error).__name__}") from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
