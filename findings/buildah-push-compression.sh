#!/usr/bin/env bash
# What it shows: buildah push --disable-compression compresses all the same where an image usually
#   goes, to a registry, and into a folder in the OCI layout. Only "dir:" gets plain layers, and that
#   gets them without the option, too.
# Why it matters: who pushes gigabytes to a registry on the same disk turns compression off, waits as
#   long as before, and finds layers of gzip there. What helps is --compression-level=1, and that the
#   registry keeps its address: by it buildah remembers which layers are there.
# Versions: buildah 1.28.2 (Debian 12's), built with Go 1.26; the registry is a stand-in of Python's
#   http.server, which keeps the kinds of the layers.
# Seen: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; chmod -R u+w "$folder"; rm -rf "$folder"' EXIT

cat >"$folder/registry.py" <<'PYTHON'
"""Take every blob, and write down the layers of every manifest."""
import http.server
import json
import pathlib
import sys

folder = pathlib.Path(sys.argv[1])


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        self.answer(200 if self.path == "/v2/" else 404)

    do_HEAD = do_GET

    def do_POST(self):
        self.body()
        self.answer(202, Location=f"{self.path}one")

    def do_PATCH(self):
        size = len(self.body())
        self.answer(202, Location=self.path, Range=f"0-{size - 1}")

    def do_PUT(self):
        body = self.body()
        if "/manifests/" in self.path:
            kinds = {layer["mediaType"].rpartition(".")[2] for layer in json.loads(body)["layers"]}
            (folder / self.path.rpartition("/")[2]).write_text(" ".join(sorted(kinds)))
        self.answer(201)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
(folder / "port").write_text(str(server.server_address[1]))
server.serve_forever()
PYTHON
mkdir "$folder/pushed"
python3 "$folder/registry.py" "$folder/pushed" &
server=$!

head -c 300000 /dev/zero | tr '\0' x >"$folder/file"
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$folder/policy.json"
tags="containers_image_openpgp exclude_graphdriver_btrfs exclude_graphdriver_devicemapper"
bad=0

# expect WHAT SEEN EXPECTED
expect() {
  echo "$1: $2"
  [ "$2" = "$3" ] || { echo "changed: it was $3"; bad=1; }
}

mkdir "$folder/build"
(
  cd "$folder/build"
  go mod init build && go get github.com/containers/buildah@v1.28.2
  CGO_ENABLED=0 go build -buildvcs=false -tags "$tags" -o "$folder/buildah" \
    github.com/containers/buildah/cmd/buildah
) >"$folder/build.log" 2>&1 || { tail "$folder/build.log"; exit 1; }

buildah() {
  local command=$1
  shift
  "$folder/buildah" --root "$folder/root" --runroot "$folder/run" --storage-driver vfs \
    "$command" "$@"
}
trust=(--quiet --signature-policy "$folder/policy.json")
push() { buildah push "${trust[@]}" --tls-verify=false "$@" >/dev/null; }

container=$(buildah from scratch)
buildah add "$container" "$folder/file" /file >/dev/null
image=$(buildah commit "${trust[@]}" "$container" localhost/one)

registry="docker://127.0.0.1:$(cat "$folder/pushed/port")/one"
push "$image" "$registry:default"
push --disable-compression "$image" "$registry:disabled"
push --disable-compression "$image" "oci:$folder/oci:one"
push "$image" "dir:$folder/dir"
push --disable-compression "$image" "dir:$folder/plain"
kind() { grep -rhoE 'tar(\+gzip)?"' "$1" | head -1 | tr -d '"'; }

expect "to a registry" "$(cat "$folder/pushed/default")" tar+gzip
expect "to a registry, with --disable-compression" "$(cat "$folder/pushed/disabled")" tar+gzip
expect "into an OCI layout, with --disable-compression" "$(kind "$folder/oci/blobs")" tar+gzip
expect "into dir:" "$(kind "$folder/dir/manifest.json")" tar+gzip
expect "into dir:, with --disable-compression" "$(kind "$folder/plain/manifest.json")" tar
exit $bad
