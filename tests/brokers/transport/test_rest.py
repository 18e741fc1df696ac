"""Keys and tokens over REST: what is sent, what refusals become, and that no secret is told."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import time
from datetime import datetime, timedelta

import pytest

from brokers.errors import RateLimited, RequestRejected, ServiceUnavailable, redact
from brokers.kis import rest as kis_rest
from brokers.kis.rest import ApprovalKey
from brokers.kiwoom.rest import access_token
from brokers.transport import token_cache
from brokers.transport.token_cache import AccessToken, TokenFile
from conf import clock
from conf.clock import KST
from conf.loader import Secrets

SECRETS = Secrets("app-key-0123456789-0123456789", "app-secret-0123456789-0123456789")


@pytest.fixture
def vendor(make_vendor):
    """A REST server."""
    return make_vendor("kis")


def approval(vendor) -> ApprovalKey:
    """KIS's, against the server."""
    return ApprovalKey(f"http://127.0.0.1:{vendor.port}", SECRETS, clock.real())


def token(vendor, path) -> AccessToken:
    """Kiwoom's, against the server."""
    return access_token(f"http://127.0.0.1:{vendor.port}/", SECRETS, path / "token" / "kiwoom.json", clock.real())


def test_an_approval_key_is_asked_for_once_and_again_after_it_was_refused(vendor):
    """One per process; `spoil` asks for another."""
    keys = approval(vendor)

    assert [keys.get(), keys.get()] == ["approval-1", "approval-1"]
    keys.invalidate()
    assert keys.get() == "approval-2"


def test_an_approval_key_near_its_end_is_renewed(vendor):
    """After 23 of its 24 hours."""
    keys = approval(vendor)
    keys.get()
    keys._issued_ns -= 23 * 3600 * 10**9 + 1

    assert keys.get() == "approval-2"


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (
            403,
            {"error_code": "EGW00133", "error_description": "접근토큰 발급 잠시 후"},
            RateLimited,
            "EGW00133: 접근토큰",
        ),
        (500, {"rt_cd": "1", "msg_cd": "EGW00201", "msg1": "초당 거래건수를"}, RateLimited, "EGW00201"),
        (
            403,
            {"error_code": "EGW00103", "error_description": "유효하지 않은 AppKey"},
            RequestRejected,
            "EGW00103: 유효",
        ),
        (200, {}, RequestRejected, "HTTP 200"),
        (429, {}, RateLimited, "429"),
        (200, {"approval_key": 5}, RequestRejected, "no reason"),
    ],
)
def test_kis_refusals_become_words(vendor, status, body, error, words):
    """The gateway's own code and text (docs/wire/kis.md 1.5, 1.7)."""
    vendor.rest = lambda path, asked: (status, body)

    with pytest.raises(error, match=words) as caught:
        approval(vendor).get()
    assert caught.value.retry_after_s >= 10


def test_a_server_that_is_not_there_or_talks_html_is_unreachable(vendor):
    """In words, with the address."""
    with pytest.raises(ServiceUnavailable, match=r"127\.0\.0\.1:1/.*refused"):
        ApprovalKey("http://127.0.0.1:1", SECRETS, clock.real()).get()
    vendor.rest = lambda path, asked: (502, ["bad gateway"])
    with pytest.raises(ServiceUnavailable, match="HTTP 502 without a JSON object"):
        approval(vendor).get()


@pytest.mark.parametrize("control", [chr(code) for code in range(32)])
def test_a_control_character_inside_a_text_costs_no_answer(vendor, tmp_path, control):
    """Neither a token nor the words of a refusal; it is a blank then."""
    ends = '"expires_dt":"20301231235959"'
    vendor.rest = lambda path, asked: (
        200,
        f'{{"return_code":0,"return_msg":"정상{control}처리","token":"kept",{ends}}}'.encode(),
    )
    assert token(vendor, tmp_path).get() == "kept"
    vendor.rest = lambda path, asked: (403, f'{{"error_code":"EGW00103","error_description":"a{control}b"}}'.encode())
    with pytest.raises(RequestRejected, match="EGW00103: a b"):
        approval(vendor).get()


def test_a_token_is_kept_on_disk_for_everybody(vendor, tmp_path):
    """The second asker reads it; only the owner of the file may."""
    assert [token(vendor, tmp_path).get(), token(vendor, tmp_path).get()] == ["token-1", "token-1"]
    file = tmp_path / "token" / "kiwoom.json"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert SECRETS.app_key not in file.read_text()


def test_a_token_is_renewed_ten_minutes_before_its_end_in_korean_time(vendor, tmp_path):
    """`expires_dt` is KST, whatever the machine's zone (docs/wire/kiwoom.md 8.2)."""

    def ending_in(minutes: float):
        end = datetime.now(KST) + timedelta(minutes=minutes)
        return lambda path, asked: (
            200,
            {"token": f"token-{len(vendor.posts)}", "expires_dt": f"{end:%Y%m%d%H%M%S}", "return_code": 0},
        )

    vendor.rest = ending_in(9)
    assert [token(vendor, tmp_path).get() for _ in range(2)] == ["token-1", "token-2"]
    vendor.rest = ending_in(12)
    assert [token(vendor, tmp_path).get() for _ in range(2)] == ["token-3", "token-3"]


def test_a_spoiled_token_is_renewed_unless_somebody_was_faster(vendor, tmp_path):
    """Of two processes that were both refused, one asks."""
    one, two = token(vendor, tmp_path), token(vendor, tmp_path)
    one.get(), two.get()

    one.invalidate()
    assert one.get() == "token-2"
    two.invalidate()
    assert two.get() == "token-2"


def test_another_key_does_not_get_the_first_ones_token(vendor, tmp_path):
    """After the key in .env was changed."""
    token(vendor, tmp_path).get()
    other = access_token(
        f"http://127.0.0.1:{vendor.port}/", Secrets("k2", "s2"), tmp_path / "token" / "kiwoom.json", clock.real()
    )

    assert other.get() == "token-2"


def test_a_token_lock_that_another_process_does_not_let_go_is_said_and_not_waited_for_for_ever(
    vendor, tmp_path, monkeypatch
):
    """A process that was stopped while it asked for a token: the others say so and come again."""
    path = tmp_path / "kiwoom.json"
    monkeypatch.setattr(token_cache, "LOCK_TIMEOUT_S", 0.2)
    fd = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)

    with pytest.raises(ServiceUnavailable, match=rf"kiwoom\.lock: process {os.getpid()} holds it"):
        TokenFile(path, "owner").get(0, lambda: ("token", 1))

    os.close(fd)
    assert TokenFile(path, "owner").get(0, lambda: ("token", 1)) == "token"


def test_a_damaged_token_file_costs_one_call(vendor, tmp_path):
    """A torn file after a power cut is no reason to stop."""
    token(vendor, tmp_path).get()
    (tmp_path / "token" / "kiwoom.json").write_text('{"text":"tok')

    assert token(vendor, tmp_path).get() == "token-2"


def _ask(path, log) -> None:
    def issue() -> tuple[str, int]:
        with log.open("a") as file:
            file.write("issued\n")
        time.sleep(0.3)
        return "the token", time.time_ns() + 10**15

    TokenFile(path, "owner").get(time.time_ns(), issue)


def test_processes_that_ask_at_once_issue_one_token(tmp_path):
    """The lock is held around the call."""
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    asking = [context.Process(target=_ask, args=(tmp_path / "t" / "kiwoom.json", log)) for _ in range(4)]

    for process in asking:
        process.start()
    for process in asking:
        process.join(20)

    assert [process.exitcode for process in asking] == [0] * 4
    assert log.read_text() == "issued\n"


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (
            {"return_code": 3, "return_msg": "인증에 실패했습니다[8050:IP가 등록되지 않았습니다]"},
            RequestRejected,
            "8050",
        ),
        ({"return_code": "3", "return_msg": "[8030:x]"}, RequestRejected, "8030"),
        ({"returnCode": 2, "returnMsg": "[8020:x]"}, RequestRejected, "8020"),
        ({"return_code": 5, "return_msg": "허용된 [1700:유량=5]"}, RateLimited, "1700"),
        ({"return_code": 0, "return_msg": "ok"}, RequestRejected, "refused: 0"),
        ({"return_code": 0, "token": "t", "expires_dt": "tomorrow"}, RequestRejected, "expires_dt 'tomorrow'"),
    ],
)
def test_kiwoom_refusals_become_words(vendor, tmp_path, body, error, words):
    """HTTP 200 means nothing; the inner code does (docs/wire/kiwoom.md 1.5)."""
    vendor.rest = lambda path, asked: (200, body)

    with pytest.raises(error, match=words) as caught:
        token(vendor, tmp_path).get()
    assert not (tmp_path / "token" / "kiwoom.json").exists()
    assert caught.value.retry_after_s >= 10


def test_no_secret_is_in_a_message(vendor, tmp_path):
    """Even if the vendor repeats what it was sent."""
    vendor.rest = lambda path, asked: (403, {"error_code": "EGW00103", "error_description": f"bad {asked}"})
    with pytest.raises(RequestRejected) as caught:
        approval(vendor).get()
    vendor.rest = lambda path, asked: (200, {"return_code": 3, "return_msg": f"bad {asked}"})
    with pytest.raises(RequestRejected) as caught_too:
        token(vendor, tmp_path).get()

    for said in (str(caught.value), str(caught_too.value)):
        assert "***" in said
        assert SECRETS.app_key not in said
        assert SECRETS.app_secret not in said


def test_masking_hides_what_is_long_and_leaves_words():
    """Keys are long runs of letters and digits."""
    assert redact("invalid approval : 7c1f3b2d-4e9a-b605-d81c-9f27e6d0c35b") == "invalid approval : ***"
    assert redact("MAX SUBSCRIBE OVER 토큰이 유효하지 않습니다") == "MAX SUBSCRIBE OVER 토큰이 유효하지 않습니다"


def test_a_redirect_is_not_followed(vendor):
    """A body with a secret in it is sent to nobody else."""
    vendor.rest = lambda path, asked: (307, {"msg_cd": "moved"}, {"Location": "/elsewhere"})

    with pytest.raises(RequestRejected, match="moved"):
        approval(vendor).get()
    assert len(vendor.posts) == 1


def kis_token(vendor, path) -> AccessToken:
    """KIS's, against the server."""
    return kis_rest.access_token(f"http://127.0.0.1:{vendor.port}", SECRETS, path / "token" / "kis.json", clock.real())


def issued(vendor, life_s=86_400):
    """An answer with a token, numbered by the calls so far (docs/wire/kis.md 1.2)."""
    return lambda path, asked: (200, {"access_token": f"token-{len(vendor.posts)}", "expires_in": life_s})


def test_kis_access_tokens_are_issued_once_for_all_processes(vendor, tmp_path):
    """Until they near their end or are spoiled; here the secret is called appsecret."""
    vendor.rest = issued(vendor)

    assert ["token-1", "token-1"] == [kis_token(vendor, tmp_path).get() for _ in range(2)]
    assert [("/oauth2/tokenP", {"appkey", "appsecret", "grant_type"})] == [(p, set(asked)) for p, asked in vendor.posts]
    last = kis_token(vendor, tmp_path)
    last.get()
    last.invalidate()
    vendor.rest = issued(vendor, life_s=500)  # less than the ten minutes before the end
    assert ["token-2", "token-3"] == [last.get(), last.get()]


@pytest.mark.parametrize(
    ("status", "body", "error", "wait_s"),
    [
        (403, {"error_code": "EGW00133", "error_description": "1분당 1회"}, RateLimited, 60),
        (403, {"error_code": "EGW00105", "error_description": "유효하지 않은 AppSecret"}, RequestRejected, 60),
        (200, {"access_token": ""}, RequestRejected, 60),
        (200, {"access_token": 7, "expires_in": 86400}, RequestRejected, 60),
    ],
)
def test_a_refused_access_token_is_not_asked_for_again_within_the_vendors_minute(
    vendor, tmp_path, status, body, error, wait_s
):
    """EGW00133 (docs/wire/kis.md 1.2)."""
    vendor.rest = lambda path, asked: (status, body)

    with pytest.raises(error) as caught:
        kis_token(vendor, tmp_path).get()
    assert wait_s == caught.value.retry_after_s
