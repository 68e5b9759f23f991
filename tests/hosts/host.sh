#!/bin/bash
# host.sh up | cut | boot | down | pid: a throw-away machine with a real systemd, to install things on.
#
# It has its own network (loopback only), processes, mounts, name and cgroups, and a copy of this machine's root that
# is written to in memory: what is changed on it is seen by nobody else. `cut` takes its power away, `boot` gives it
# back with the same disk and another boot id; `up` makes it and boots it, `down` leaves nothing of it. `pid` prints
# its first process as this machine sees it: `nsenter --all --target PID COMMAND` runs a command on it.
# HOST_NAME names it, and the network namespace and the cgroup that it lives in.
# Needs root and, from Debian: iproute2, systemd, util-linux; dbus for users who ask systemd.
set -eu
checkout=$(readlink -f "$(dirname "$0")/../..")
name=${HOST_NAME:-segue-host} folder=/run/$name
cgroups=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts) # a pure v2 machine, or the v2 half of a hybrid one

up() {
    mkdir -m 700 "$folder"
    mount -t tmpfs -o mode=755 "$name" "$folder"
    mkdir "$folder/disk" "$folder/work" "$folder/root"
    ip netns add "$name"
    ip -n "$name" link set lo up
    boot
}

boot() {
    cat /proc/sys/kernel/random/uuid > "$folder/boot_id"
    mkdir -p "$cgroups/$name"
    # shellcheck disable=SC2016
    setsid bash -c 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"' _ "$cgroups/$name" \
        nsenter --net="/run/netns/$name" unshare --mount --uts --ipc --pid --cgroup --fork --kill-child=KILL \
        "$(readlink -f "$0")" _init </dev/null >"$folder/log" 2>&1 &
    echo $! > "$folder/outer"
    for _ in $(seq 600); do
        if [ -n "$(pid)" ] && nsenter --all --target "$(pid)" systemctl is-active --quiet multi-user.target 2>/dev/null
        then return; fi
        sleep 0.05
    done
    echo "the host did not come up: $(tail -n 5 "$folder/log")" >&2
    exit 1
}

_init() { # the first process of the new namespaces: it lays the machine out and becomes its systemd
    local root=$folder/root device
    mount --make-rprivate /
    mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/disk,workdir=$folder/work" "$root"
    cd "$root"
    mount -t proc proc proc
    mount --bind proc/sys proc/sys
    mount --bind "$folder/boot_id" proc/sys/kernel/random/boot_id
    mount --bind proc/sys/net proc/sys/net # its own network's settings may be written, those of this machine not
    mount -o remount,bind,ro proc/sys
    mount -t sysfs -o ro sys sys
    mount -t cgroup2 cgroup sys/fs/cgroup
    mount -t tmpfs -o mode=755 dev dev
    mkdir dev/pts dev/shm
    for device in null zero full random urandom tty; do
        touch dev/$device
        mount --bind /dev/$device dev/$device
    done
    ln -s /proc/self/fd dev/fd
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 pts dev/pts
    ln -s pts/ptmx dev/ptmx
    mount -t tmpfs -o mode=1777 shm dev/shm
    mount -t tmpfs -o mode=755 run run
    mount -t tmpfs -o mode=1777 tmp tmp
    case $checkout in # where it would be hidden by what was just mounted
        /tmp/* | /run/* | /dev/*)
            mkdir -p ".$checkout"
            mount --bind "$checkout" ".$checkout"
            ;;
    esac
    [ -e etc/hosted ] || _settle
    hostname "$name"
    pivot_root . . # the old root lies over the new one now, until it is taken away
    umount -l .
    exec env -i container=segue TERM=linux PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system
}

_settle() { # once: nothing that this machine starts or mounts at its boot is there on that one
    local unit
    find etc/systemd/system -mindepth 1 -type l -delete
    mkdir -p etc/systemd/system-generators etc/tmpfiles.d
    ln -sf /dev/null etc/systemd/system-generators/systemd-sysv-generator
    for unit in getty.target systemd-modules-load.service systemd-sysctl.service; do
        ln -sf /dev/null "etc/systemd/system/$unit"
    done
    : > etc/fstab
    ln -sf /lib/systemd/system/multi-user.target etc/systemd/system/default.target
    rm -f etc/resolv.conf etc/hosts
    echo "127.0.0.1 localhost $name" > etc/hosts
    : > etc/resolv.conf
    echo "$name" > etc/hostname
    tr -d - < /proc/sys/kernel/random/uuid > etc/machine-id
    touch etc/hosted
}

pid() {
    [ ! -e "$folder/outer" ] || cat "/proc/$(cat "$folder/outer")/task/"*/children 2>/dev/null | tr -d ' ' || true
}

cut() {
    local outer
    outer=$(cat "$folder/outer")
    kill -9 "$outer" 2>/dev/null || true
    for _ in $(seq 100); do
        grep -qs 'populated 0' "$cgroups/$name/cgroup.events" && break
        sleep 0.05
    done
    find "$cgroups/$name" -depth -type d -exec rmdir {} +
}

down() {
    [ ! -e "$folder/outer" ] || cut || true
    ip netns del "$name" 2>/dev/null || true
    ! mountpoint -q "$folder" || umount "$folder"
    rm -rf "$folder"
}

case ${1:-} in
up | boot | cut | down | pid | _init) "$1" ;;
*) sed -n '2,10s/^# //p' "$0" >&2; exit 2 ;;
esac
