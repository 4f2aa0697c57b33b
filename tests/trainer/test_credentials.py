"""Content credentials: whole files are valid, a changed byte is not, and the key stays where it is."""

import json
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import c2pa
import numpy as np
import pytest
from PIL import Image

from orchestration import cli
from pipelines.video.read import read_frames
from pipelines.video.write import write_video
from schemas.errors import ConfigError, ModelError
from trainer.credentials import CredentialsConfig, Generation, development, read, sign
from trainer.prompt_policy import PromptPolicy, Refused

MADE = Generation(
    checkpoint="dit0",
    autoencoder="vae0",
    manifest="manifest0",
    prompt='a "red" square \u2014 on sand',
    prompt_used="A large red square is moving left over sand.",
    seed=7,
    task="text_to_video",
    sampling="{}",
)
NOISE = np.random.default_rng(0).integers(0, 255, (9, 64, 48, 3)).astype(np.uint8)


def video(path: Path) -> Path:
    write_video(str(path / "made.mp4"), NOISE, 8.0)
    return path / "made.mp4"


def picture(path: Path) -> Path:
    Image.fromarray(NOISE[0]).save(path / "made.png")
    return path / "made.png"


KINDS = pytest.mark.parametrize("make", [video, picture])


@KINDS
def test_a_signed_file_says_what_made_it_and_shows_the_same_pictures(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    file = make(tmp_path)
    before = read_frames(str(file))[0]
    sign(file, MADE, CredentialsConfig(), tmp_path / "secrets")
    found = read(file)
    assert (found["state"], found["problems"]) == ("Valid", [])
    assert found["signer"] == "dailies development signer"
    assert found["generation"] == {f: getattr(MADE, f) for f in MADE.__slots__}
    assert np.array_equal(read_frames(str(file))[0], before)
    with c2pa.Reader(str(file)) as reader:  # the library's own word, not ours
        manifest = json.loads(reader.json())
        assert reader.get_validation_state() == "Valid"
    (action,) = next(
        a["data"]["actions"]
        for a in manifest["manifests"][manifest["active_manifest"]]["assertions"]
        if a["label"].startswith("c2pa.actions")
    )
    assert action["digitalSourceType"].endswith("/trainedAlgorithmicMedia")


@KINDS
@pytest.mark.parametrize("place", [0.35, 0.6, 0.97])
def test_a_changed_byte_fails(make: Callable[[Path], Path], place: float, tmp_path: Path) -> None:
    file = make(tmp_path)
    sign(file, MADE, CredentialsConfig(), tmp_path / "secrets")
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 0x01
    file.write_bytes(bytes(data))
    try:
        assert read(file)["state"] == "Invalid"
        code = cli.main(["credentials", str(file), "--json"])
    except ModelError:  # the byte was one that held the credentials together
        return
    assert code == 1


def test_a_file_without_credentials_and_no_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"made\.mp4 carries no content credentials"):
        read(video(tmp_path))
    with pytest.raises(ModelError, match=r"nowhere\.mp4"):
        read(tmp_path / "nowhere.mp4")


def test_the_development_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    secrets = tmp_path / "deep" / "c2pa"
    with ThreadPoolExecutor(4) as pool:
        keys = {key.read_bytes() for _, key in pool.map(lambda _: development(secrets), range(8))}
    assert len(keys) == 1
    assert stat.S_IMODE(os.stat(secrets / "key.pem").st_mode) == 0o600
    assert sorted(p.name for p in secrets.parent.iterdir()) == ["c2pa"]


def test_a_users_own_certificate_signs_and_a_wrong_one_is_named_and_leaves_the_file(tmp_path: Path) -> None:
    chain, key = development(tmp_path / "mine")
    file = video(tmp_path)
    mine = CredentialsConfig(certificate=str(chain), key=str(key))
    sign(file, MADE, mine, tmp_path / "unused")
    assert read(file)["state"] == "Valid"
    assert not (tmp_path / "unused").exists()
    plain = file.read_bytes()
    (tmp_path / "bad.pem").write_text("no certificate")
    bad = CredentialsConfig(certificate=str(tmp_path / "bad.pem"), key=str(key))
    with pytest.raises(ConfigError, match=r"content credentials: .*bad\.pem"):
        sign(file, MADE, bad, tmp_path / "unused")
    assert file.read_bytes() == plain
    assert {p.name for p in tmp_path.iterdir()} == {"made.mp4", "mine", "bad.pem"}


def test_wrong_configs_fail_at_construction() -> None:
    with pytest.raises(ValueError, match="both `certificate` and `key`"):
        CredentialsConfig(certificate="a.pem")
    with pytest.raises(ValueError, match="no C2PA algorithm"):
        CredentialsConfig(algorithm="md5")
    for wrong in ({"deny": ("guns",)}, {"deny": ("guns=(",)}, {"hook": "os.system"}):
        with pytest.raises(ValueError, match="prompt"):
            PromptPolicy(**wrong)


def no_cats(prompt: str) -> str:
    return "no cats here" if "cat" in prompt else ""


def test_rules_and_hooks_refuse_by_name() -> None:
    policy = PromptPolicy(deny=(r"weapons=\b(gun|rifle)s?\b",), hook=f"{__name__}:no_cats")
    policy.check("a gunnery sergeant's dog")
    with pytest.raises(Refused, match="rule `weapons`"):
        policy.check("two GUNS on a table")
    with pytest.raises(Refused, match="no cats here"):
        policy.check("a cat")
    with pytest.raises(ConfigError, match="cannot be had"):
        PromptPolicy(hook="no_such_module:f").check("a dog")
