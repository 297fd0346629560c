"""`graylift token`: printed once, listed without itself, refused with a name that is none."""

from __future__ import annotations

from calling import Shell


def test_a_token_is_printed_once_and_revoked(shell: Shell) -> None:
    made = shell.call("token", "create", "--role", "operator", "--name", "ana")
    assert made.code == 0
    assert made.out.startswith("graylift_")
    assert shell.call("token", "list").out.split() == ["ana", "operator", "good", "for", "ever"]
    assert shell.call("token", "revoke", "ana").code == 0
    assert "revoked" in shell.call("token", "list").out


def test_a_script_is_no_name_and_an_api_for_all_machines_needs_a_token(shell: Shell) -> None:
    assert shell.call("token", "create", "--name", "<script>").code == 2
    refused = shell.call("up", "--api", "0.0.0.0:0")
    assert refused.code == 2
    assert "graylift token create" in refused.err
