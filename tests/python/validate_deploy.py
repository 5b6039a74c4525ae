"""Checks deploy/: the Kubernetes files against the API's schemas and this project's own rules, the
container file against rules of its own. Run with the environment of scripts/setup-python.sh.

Before it looks at the files it proves on broken copies that each check can fail.
"""

import copy
import json
import re
import sys
from pathlib import Path

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
MANIFESTS = ROOT / "deploy" / "kubernetes"

# The oldest schema that knows all that the files use, and the newest that the package has.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]


def main():
    dockerfile = DOCKERFILE.read_text()
    files = {path.name: documents(path.read_text()) for path in sorted(MANIFESTS.glob("*.yaml"))}
    if not files:
        sys.exit(f"no Kubernetes files in {MANIFESTS}")
    broken = prove_dockerfile_checks(dockerfile) + prove_manifest_checks(files["sidecar.yaml"])
    complaints = [f"deploy/Dockerfile: {complaint}" for complaint in check_dockerfile(dockerfile)]
    for name, contents in files.items():
        complaints += [f"deploy/kubernetes/{name}: {complaint}" for complaint in check_manifests(contents)]
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    if complaints:
        sys.exit(1)
    count = sum(map(len, files.values()))
    print(f"deploy: {count} Kubernetes documents hold under {' and '.join(VERSIONS)}, the container file "
          f"holds; {broken} broken copies were refused")


# --- container file ---

def check_dockerfile(text):
    """What is wrong with a container file, in words."""
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text)).splitlines()
    stages = [line.split()[1] for line in lines if line.startswith("FROM ")]
    final = lines[max(i for i, line in enumerate(lines) if line.startswith("FROM ")):] if stages else []
    rules = [
        (len(stages) >= 3, "is not built in stages"),
        (all(re.search(r":(?!latest$)[\w.-]+$", image) for image in stages), "an image has no tag, or :latest"),
        (any(re.fullmatch(r"USER [1-9]\d*(:[1-9]\d*)?", line) for line in final), "the user is not a number other than 0"),
        (any(line.startswith("RUN") and "scripts/setup-onnxruntime.sh" in line for line in lines),
         "ONNX Runtime does not come from the pinned set-up script"),
        (copies(final, "/usr/local/bin/sluice-gateway"), "the binary is not copied to /usr/local/bin/sluice-gateway"),
        (copies(final, "/usr/local/lib/libonnxruntime.so"), "the library is not copied to /usr/local/lib/libonnxruntime.so"),
        (any("SLUICE_ONNXRUNTIME=/usr/local/lib/libonnxruntime.so" in line for line in final),
         "SLUICE_ONNXRUNTIME does not name the library"),
        ("EXPOSE 8080 8081 8082" in final, "the ports 8080 8081 8082 are not exposed"),
        ("STOPSIGNAL SIGTERM" in final, "the stop signal is not SIGTERM"),
        ('ENTRYPOINT ["sluice-gateway"]' in final, "sluice-gateway is not the entry point"),
        (not any(re.search(r"cargo build(?!.*--package sluice-gateway)", line) for line in lines),
         "cargo builds more than the gateway"),
        (builder_context_is_whole(lines), "it copies a path that .dockerignore leaves out"),
    ]
    return [complaint for holds, complaint in rules if not holds]


def copies(lines, target):
    return any(re.fullmatch(rf"COPY --from=\w+ \S+ {re.escape(target)}", line) for line in lines)


def builder_context_is_whole(lines):
    """Whether each path that is copied from the context exists and is let through."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    paths = [path for line in lines if line.startswith("COPY ") and "--from" not in line for path in line.split()[1:-1]]
    return all(path == "." or (path in allowed and (ROOT / path).exists()) for path in paths)


def prove_dockerfile_checks(good):
    breaks = [
        (r"debian:bookworm-slim", "debian:latest"),
        (r"debian:bookworm-slim", "debian"),
        (r"USER 65532:65532", "USER 0"),
        (r"USER 65532:65532", "USER sluice"),
        (r"USER 65532:65532\n", ""),
        (r"RUN scripts/setup-onnxruntime.sh", "RUN pip install onnxruntime"),
        (r"COPY --from=builder .*\n", ""),
        (r"COPY --from=onnxruntime \S*\.so .*\n", ""),
        (r"SLUICE_ONNXRUNTIME=\S+", "SLUICE_ONNXRUNTIME=libonnxruntime.so"),
        (r"--package sluice-gateway", "--workspace"),
        (r"COPY scripts/setup-onnxruntime.sh", "COPY README.txt scripts/setup-onnxruntime.sh"),
        (r"STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL"),
        (r"EXPOSE .*\n", ""),
        (r"ENTRYPOINT .*", 'ENTRYPOINT ["sh"]'),
    ]
    for pattern, replacement in breaks:
        broken, changes = re.subn(pattern, replacement, good)
        refuse(changes > 0 and check_dockerfile(broken), f"Dockerfile with '{replacement}' for '{pattern}'")
    return len(breaks)


# --- Kubernetes ---

def documents(text):
    return [document for document in yaml.safe_load_all(text) if document is not None]


def check_manifests(contents):
    """What is wrong with the documents of one file, in words."""
    return [complaint for document in contents for complaint in schema_complaints(document)] + [
        complaint for document in contents if document.get("kind") == "Deployment"
        for complaint in pod_complaints(document, contents)
    ]


def schema_complaints(document):
    complaints = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            reason = getattr(error, "message", None) or str(error)
            complaints.append(f"{document.get('kind')} under Kubernetes {version}: {reason}")
    return complaints


def pod_complaints(deployment, contents):
    """The rules of this project for a pod with a gateway in it; schemas do not know them."""
    pod = deployment["spec"]["template"]["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    containers = pod.get("initContainers", []) + pod["containers"]
    gateways = [container for container in containers if container["name"] == "sluice-gateway"]
    if not gateways:
        return ["Deployment has no container named sluice-gateway"]
    claims = {d["metadata"]["name"] for d in contents if d["kind"] == "PersistentVolumeClaim"}
    complaints = [f"container {c['name']}: {complaint}" for c in containers for complaint in container_complaints(c, pod)]
    complaints += gateway_complaints(gateways[0], pod)
    for document in contents:
        selector = document["spec"].get("selector", {})
        if document["kind"] in ("Service", "PodDisruptionBudget") and selector.get("matchLabels", selector) != labels:
            complaints.append(f"{document['kind']} does not select the Deployment's pods")
    for volume in pod.get("volumes", []):
        if volume.get("persistentVolumeClaim", {}).get("claimName") not in claims | {None}:
            complaints.append(f"volume {volume['name']} claims what the file does not have")
    return complaints


def container_complaints(container, pod):
    context = container.get("securityContext", {})
    rules = [
        (re.search(r":(?!latest$)[\w.-]+$", container["image"]), "the image has no tag, or :latest"),
        (pod.get("securityContext", {}).get("runAsNonRoot") is True, "may run as root"),
        (context.get("readOnlyRootFilesystem") is True, "the root file system is writable"),
        (context.get("allowPrivilegeEscalation") is False, "may gain privileges"),
        (context.get("capabilities", {}).get("drop") == ["ALL"], "keeps capabilities"),
        ({"requests", "limits"} <= container.get("resources", {}).keys(), "has no requests or limits"),
    ]
    return [complaint for holds, complaint in rules if not holds]


def gateway_complaints(gateway, pod):
    environment = {variable["name"]: variable.get("value") for variable in gateway.get("env", [])}
    drain = int(environment.get("SLUICE_DRAIN_TIMEOUT", "20s").removesuffix("s"))
    hold = gateway.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    mounts = {mount["name"]: mount["mountPath"] for mount in gateway.get("volumeMounts", [])}
    state = [volume["name"] for volume in pod.get("volumes", []) if "emptyDir" in volume]
    expected = {"startupProbe": "ready", "readinessProbe": "ready", "livenessProbe": "live"}
    complaints = [
        f"gateway: {probe} does not ask /v2/health/{path} on 8080" for probe, path in expected.items()
        if gateway.get(probe, {}).get("httpGet") != {"path": f"/v2/health/{path}", "port": 8080}
    ]
    if hold == 0:
        complaints.append("gateway: has no preStop hook that holds it while the Service forgets it")
    if pod.get("terminationGracePeriodSeconds", 30) <= hold + drain:
        complaints.append("gateway: the grace period does not hold the preStop hook and the drain")
    if environment.get("SLUICE_STATE") not in [mounts.get(name) for name in state]:
        complaints.append("gateway: SLUICE_STATE is not on an emptyDir")
    if environment.get("SLUICE_MODEL_REPOSITORY") not in mounts.values():
        complaints.append("gateway: SLUICE_MODEL_REPOSITORY is not on a volume")
    return complaints


def prove_manifest_checks(good):
    """Each change makes a copy of the sidecar example wrong in one way."""
    pod = ("Deployment", "spec", "template", "spec")
    gateway = (*pod, "initContainers", 0)
    changes = [
        ((*pod, "contaners"), []),
        (("Deployment", "apiVersion"), "apps/v7"),
        (("Deployment", "spec", "replicas"), "two"),
        ((*gateway, "restartPolicy"), 3),
        ((*gateway, "image"), "sluice-gateway:latest"),
        ((*gateway, "livenessProbe", "httpGet", "port"), 9999),
        ((*gateway, "readinessProbe", "httpGet", "path"), "/healthz"),
        ((*gateway, "startupProbe"), {}),
        ((*gateway, "lifecycle"), {}),
        ((*gateway, "env"), []),
        ((*gateway, "securityContext", "readOnlyRootFilesystem"), False),
        ((*gateway, "securityContext", "capabilities"), {}),
        ((*gateway, "resources"), {}),
        ((*gateway, "name"), "gateway"),
        ((*pod, "terminationGracePeriodSeconds"), 25),
        ((*pod, "securityContext", "runAsNonRoot"), False),
        ((*pod, "volumes", 0, "persistentVolumeClaim", "claimName"), "other"),
        (("Service", "spec", "selector"), {"app": "other"}),
        (("PodDisruptionBudget", "spec", "minAvailable"), [1]),
    ]
    for path, value in changes:
        broken = copy.deepcopy(good)
        place = next(document for document in broken if document["kind"] == path[0])
        for step in path[1:-1]:
            place = place[step]
        place[path[-1]] = value
        refuse(check_manifests(broken), f"sidecar.yaml with {'.'.join(map(str, path))} = {json.dumps(value)}")
    return len(changes)


def refuse(complaints, what):
    if not complaints:
        sys.exit(f"the checks let through a {what}")


if __name__ == "__main__":
    main()
