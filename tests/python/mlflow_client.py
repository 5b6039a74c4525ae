"""Drives a running registry with MLflow's own, unmodified client and asserts every answer.

    python mlflow_client.py http://127.0.0.1:5000
"""

import hashlib
import os
import sys
import tempfile
import uuid
from pathlib import Path

# The client retries for minutes by default; a test wants to know at once.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from requests import HTTPError

FILES = {
    "model.onnx": bytes(range(256)) * 4096,
    "manifest.toml": b"format = 1\n",
    "nested/a file.json": b"{}",
    "empty.txt": b"",
}


def refused(error_code, call, *args, **kwargs):
    """Asserts that the call is refused under this name, and returns the message."""
    try:
        call(*args, **kwargs)
    except MlflowException as error:
        assert error.error_code == error_code, (error.error_code, error.message)
        return error.message
    raise AssertionError(f"{call.__name__} was not refused with {error_code}")


def frozen(call, *args):
    """Asserts that writing files is refused because a version owns them."""
    try:
        call(*args)
    except HTTPError as error:
        assert error.response.status_code == 409, error.response.text
        assert error.response.json()["error_code"] == "RESOURCE_CONFLICT", error.response.text
        return
    raise AssertionError(f"{call.__name__} was not refused")


def upload(root):
    """Puts FILES under an artifact address, as log_artifacts does."""
    repository = get_artifact_repository(root)
    with tempfile.TemporaryDirectory() as folder:
        for path, content in FILES.items():
            local = Path(folder, path)
            local.parent.mkdir(parents=True, exist_ok=True)
            local.write_bytes(content)
        repository.log_artifacts(folder)
    return repository


def contents(folder):
    root = Path(folder)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def check_models(client, name):
    created = client.create_registered_model(name, tags={"team": "demand"}, description="first")
    assert created.name == name and created.description == "first", created
    assert created.tags == {"team": "demand"}, created
    assert created.creation_timestamp > 1_600_000_000_000, created
    message = refused("RESOURCE_ALREADY_EXISTS", client.create_registered_model, name)
    assert f"Registered Model (name={name}) already exists" in message, message
    client.update_registered_model(name, "second")
    client.set_registered_model_tag(name, "stage", "trial")
    client.set_registered_model_tag(name, "stage", "real")
    client.delete_registered_model_tag(name, "team")
    model = client.get_registered_model(name)
    assert model.description == "second" and model.tags == {"stage": "real"}, model
    message = refused("RESOURCE_DOES_NOT_EXIST", client.get_registered_model, name + "-absent")
    assert message.endswith(f"Registered Model with name={name}-absent not found"), message
    refused("INVALID_PARAMETER_VALUE", client.create_registered_model, "a/b")


def check_versions(client, name, root):
    repository = upload(root)
    listed = {file.path: (file.is_dir, file.file_size) for file in repository.list_artifacts()}
    assert listed["nested"] == (True, None), listed
    assert listed["model.onnx"] == (False, len(FILES["model.onnx"])), listed
    assert set(listed) == {path.split("/")[0] for path in FILES}, listed

    version = client.create_model_version(
        name, root, tags={"mae": "1.5"}, description="a version", run_link="http://run"
    )
    assert (version.version, version.status, version.source) == ("1", "READY", root), version
    assert version.tags == {"mae": "1.5"} and version.description == "a version", version

    # Creating the version froze its files.
    frozen(upload, root)
    frozen(repository.delete_artifacts)

    for source in ["/etc", "file:///etc", "s3://bucket/model", "mlflow-artifacts:/../x"]:
        refused("INVALID_PARAMETER_VALUE", client.create_model_version, name, source)
    refused(
        "INVALID_PARAMETER_VALUE", client.create_model_version, name, "mlflow-artifacts:/nothing"
    )

    copy = client.copy_model_version(f"models:/{name}/1", name)
    assert copy.version == "2", copy
    client.set_model_version_tag(name, "2", "mae", "1.4")
    client.delete_model_version_tag(name, "1", "mae")
    client.update_model_version(name, "2", "better")
    assert client.get_model_version(name, "1").tags == {}
    second = client.get_model_version(name, "2")
    assert second.tags == {"mae": "1.4"} and second.description == "better", second
    assert client.get_model_version_download_uri(name, "2") == root
    latest = client.get_latest_versions(name)
    assert [version.version for version in latest] == ["2"], latest
    refused("RESOURCE_DOES_NOT_EXIST", client.get_model_version, name, "9")


def check_aliases(client, name):
    client.set_registered_model_alias(name, "champion", "1")
    client.set_registered_model_alias(name, "champion", "2")
    client.set_registered_model_alias(name, "challenger", "1")
    assert client.get_model_version_by_alias(name, "champion").version == "2"
    model = client.get_registered_model(name)
    assert model.aliases == {"champion": "2", "challenger": "1"}, model.aliases
    assert client.get_model_version(name, "2").aliases == ["champion"]
    client.delete_registered_model_alias(name, "challenger")
    message = refused(
        "INVALID_PARAMETER_VALUE", client.get_model_version_by_alias, name, "challenger"
    )
    assert "Registered model alias challenger not found." in message, message
    refused("RESOURCE_DOES_NOT_EXIST", client.set_registered_model_alias, name, "champion", "9")
    for alias in ["latest", "v2", "a b"]:
        refused("INVALID_PARAMETER_VALUE", client.set_registered_model_alias, name, alias, "1")


def check_search(client, name):
    found = client.search_registered_models(filter_string=f"name = '{name}'")
    assert [model.name for model in found] == [name], found
    found = client.search_registered_models(filter_string="name LIKE 'mlflow-client-%'")
    assert name in [model.name for model in found], found
    found = client.search_registered_models(filter_string=f"name ILIKE '{name.upper()}'")
    assert [model.name for model in found] == [name], found
    found = client.search_registered_models(filter_string=f"name = '{name}' AND tag.stage = 'x'")
    assert not found, found
    versions = client.search_model_versions(f"name = '{name}'", order_by=["version_number DESC"])
    assert [version.version for version in versions] == ["2", "1"], versions
    versions = client.search_model_versions(f"name = '{name}' AND tags.mae = '1.4'")
    assert [version.version for version in versions] == ["2"], versions
    first = client.search_model_versions(f"name = '{name}'", max_results=1)
    assert len(first) == 1 and first.token, first
    rest = client.search_model_versions(
        f"name = '{name}'", max_results=1, page_token=first.token
    )
    assert {first[0].version, rest[0].version} == {"1", "2"} and not rest.token, rest
    refused("INVALID_PARAMETER_VALUE", client.search_registered_models, "name = 'a' OR name = 'b'")


def check_download(name):
    for address in [f"models:/{name}/1", f"models:/{name}@champion", f"models:/{name}/latest"]:
        with tempfile.TemporaryDirectory() as folder:
            got = contents(download_artifacts(artifact_uri=address, dst_path=folder))
            # The client leaves a note of the model's address beside the files.
            got.pop("registered_model_meta", None)
            assert {path: hashlib.sha256(content).digest() for path, content in got.items()} == {
                path: hashlib.sha256(content).digest() for path, content in FILES.items()
            }, (address, sorted(got))


def check_deletion(client, name):
    client.delete_model_version(name, "2")
    refused("RESOURCE_DOES_NOT_EXIST", client.get_model_version, name, "2")
    assert client.get_registered_model(name).aliases == {}
    third = client.copy_model_version(f"models:/{name}/1", name)
    assert third.version == "3", third
    renamed = f"{name}-renamed"
    client.rename_registered_model(name, renamed)
    refused("RESOURCE_DOES_NOT_EXIST", client.get_registered_model, name)
    assert client.get_model_version(renamed, "3").version == "3"
    client.delete_registered_model(renamed)
    refused("RESOURCE_DOES_NOT_EXIST", client.get_registered_model, renamed)


def main():
    url = sys.argv[1]
    mlflow.set_tracking_uri(url)
    mlflow.set_registry_uri(url)
    client = MlflowClient(tracking_uri=url)
    unique = uuid.uuid4().hex
    name = f"mlflow-client-{unique}"
    root = f"mlflow-artifacts:/1/models/m-{unique}/artifacts"
    check_models(client, name)
    check_versions(client, name, root)
    check_aliases(client, name)
    check_search(client, name)
    check_download(name)
    check_deletion(client, name)
    print(f"mlflow {mlflow.__version__}: models, versions, aliases, search, files: ok")


if __name__ == "__main__":
    main()
