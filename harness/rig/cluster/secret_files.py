"""The files of the secrets volume: the voters' password for the service, each voter's access list with its hash, and
the node API's token.

Made anew for every rig, and known to nobody else: not in the Compose file, not in an environment, not on this side's
disk. They get into the volume through a container that is created and never started. Whoever may use the engine can
read the token back from there: that is who may command the cluster.
"""

import hashlib
import io
import secrets
import tarfile
from collections.abc import Iterable, Mapping

import docker

from harness.model import labels
from harness.model.object_names import carrier_container, secrets_volume, witness_secrets_volume
from harness.rig.engine.connection import engine_call
from harness.rig.engine.ownership import remove_container

__all__ = ["DIRECTORY", "TOKEN_FILE", "access_list", "fill_secrets"]

DIRECTORY = "/run/secrets"
TOKEN_FILE = "api-token"
_WITNESS_DIRECTORY = "/run/witness-secrets"
_SECRET_BYTES = 32
_SERVICE_ID = 900
_VOTER_ID = 901


def access_list(voter: str, password: str) -> str:
    """A voter's `aclfile`: one user, by its password's hash, without the commands that can lose data. The user has the
    voter's name, so that who reaches another voter than the one it has asked for is refused, also by one that has lost
    its disk and with it who it is.

    The default user stays, with no password at all, so that nobody can be it: the server loads its own file under it,
    and refuses to load what that user may not do.

    A voter needs scripts, hashes and sorted sets, and INFO for people; no FLUSHALL, CONFIG, DEBUG, SHUTDOWN or
    REPLICAOF.
    """
    digest = hashlib.sha256(password.encode()).hexdigest()
    rights = "~* resetchannels +@all -@dangerous -@admin +info"
    passwords = {"default": "resetpass", voter: f"#{digest}"}
    return "".join(f"user {name} on sanitize-payload {password} {rights}\n" for name, password in passwords.items())


def fill_secrets(
    client: docker.DockerClient, *, rig: str, voters: Iterable[str], image: str, witness: str | None = None
) -> None:
    """Put new secrets into the rig's secrets volumes, which must exist and be mounted by no running node yet.

    `witness`, a further voter, has a volume of its own with its access list and nothing else.
    """
    password = secrets.token_urlsafe(_SECRET_BYTES)
    files = {
        "voter-password": (password, _SERVICE_ID),
        TOKEN_FILE: (secrets.token_urlsafe(_SECRET_BYTES), _SERVICE_ID),
        **{f"voter-{voter}.acl": (access_list(voter, password), _VOTER_ID) for voter in voters},
    }
    archives = {DIRECTORY: _archive(files)}
    volumes = {secrets_volume(rig): {"bind": DIRECTORY, "mode": "rw"}}
    if witness is not None:
        archives[_WITNESS_DIRECTORY] = _archive({f"voter-{witness}.acl": (access_list(witness, password), _VOTER_ID)})
        volumes[witness_secrets_volume(rig)] = {"bind": _WITNESS_DIRECTORY, "mode": "rw"}
    with engine_call("create a container that carries the secrets into their volume"):
        carrier = client.containers.create(
            image,
            name=carrier_container(rig),
            labels={labels.RIG: rig, labels.ROLE: str(labels.Role.CLIENT)},
            network_mode="none",
            volumes=volumes,
        )
    try:
        for directory, archive in archives.items():
            with engine_call(f"put the secrets into {secrets_volume(rig)}"):
                carrier.put_archive(directory, archive)
    finally:
        remove_container(client, str(carrier.id), rig=rig, roles=(labels.Role.CLIENT,))


def _archive(files: Mapping[str, tuple[str, int]]) -> bytes:
    """An archive of files by name: the text and the owner of each."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, (text, owner) in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o400
            entry.uid = entry.gid = owner
            tar.addfile(entry, io.BytesIO(data))
    return archive.getvalue()
