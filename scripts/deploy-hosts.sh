# shellcheck shell=bash
# Hosts for scripts/deploy-test, which sources this: containers that are as much like small virtual
# machines as containers get. `work` is its temporary directory.
#
# systemd is the first process, in a control-group namespace of its own. The Docker inside keeps its
# files in a volume, since overlayfs does not lie on overlayfs. Machines that are guests themselves
# may lack the capability that `docker run --privileged` would ask for: all others are given one by one.

network=kulprit-deploy-$$

host_archive() {
    local archive=$KULPRIT_CACHE/deploy/host.tar.zst root
    [ ! -e "$archive" ] || return 0
    mkdir -p "$KULPRIT_CACHE/deploy"
    root=$(mktemp -d "$KULPRIT_CACHE/deploy/root.XXXXXX")
    debootstrap --variant=minbase \
        --include=systemd,systemd-sysv,dbus,python3,python3-apt,openssh-server,ca-certificates,iproute2 \
        bookworm "$root" "${KULPRIT_DEBIAN_MIRROR:-http://deb.debian.org/debian}"
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/etc/{machine-id,hostname,resolv.conf} "$root"/etc/ssh/ssh_host_*
    tar --create --directory="$root" --numeric-owner . | zstd -3 --quiet >"$archive.part"
    mv "$archive.part" "$archive"
    rm -rf "$root"
}

host_image() {
    docker image inspect kulprit/deploy-host >/dev/null 2>&1 ||
        zstd --decompress --stdout --quiet "$KULPRIT_CACHE/deploy/host.tar.zst" | docker import - kulprit/deploy-host
}

capabilities() {
    local bound name number=0
    bound=$((16#$(sed -n 's/^CapBnd:\t//p' /proc/self/status)))
    for name in CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
        NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT \
        SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE \
        AUDIT_WRITE AUDIT_CONTROL SETFCAP; do
        [ $((bound >> number & 1)) = 0 ] || printf -- '--cap-add=%s\n' "$name"
        number=$((number + 1))
    done
}

# What Docker mounts for reading alone, systemd and the Docker inside have to write. The network is
# there before them, and nobody is to wait for systemd's own to manage it.
first='for at in /sys /sys/fs/cgroup /sys/fs/cgroup/*; do [ -L $at ] || mount -o remount,bind,rw $at || true; done
ln -sf /dev/null /etc/systemd/system/systemd-networkd-wait-online.service
exec /sbin/init'

start_host() { # NAME
    local given
    mapfile -t given < <(capabilities)
    docker run --detach --name "$network-$1" --hostname "$1" --network "$network" --stop-signal SIGRTMIN+3 \
        --cap-drop=ALL "${given[@]}" --cgroupns private --env container=docker \
        --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined \
        --tmpfs /run:exec --tmpfs /run/lock --tmpfs /tmp:exec \
        --volume /var/lib/docker --volume /var/lib/kulprit-agent --volume /var/lib/kulprit \
        kulprit/deploy-host sh -c "$first"
}

on() { # HOST COMMAND...
    local host=$1
    shift
    docker exec "$network-$host" "$@"
}

address() { docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$network-$1"; }

let_in() { # HOST
    local tries
    docker exec --interactive "$network-$1" sh -c 'mkdir -p /root/.ssh && cat >/root/.ssh/authorized_keys' <"$work/key.pub"
    for tries in $(seq 60); do
        ! on "$1" sh -c 'ssh-keygen -A >/dev/null && systemctl restart ssh && systemctl is-active --quiet ssh' || return 0
        sleep 1
    done
    die "host $1 has not come up after $tries s: docker logs $network-$1"
}

# Brings hosts up, and serves the demo's histories to them: sets `gateway` and `repositories`.
bring_up() { # NAME...
    local host
    host_archive
    host_image
    ssh-keygen -q -t ed25519 -N '' -f "$work/key"
    docker network create "$network"
    for host in "$@"; do start_host "$host"; done
    for host in "$@"; do let_in "$host"; done
    gateway=$(docker network inspect --format '{{range .IPAM.Config}}{{.Gateway}}{{end}}' "$network")
    # Not by way of `git daemon`, which would stay between it and the kill.
    "$(git --exec-path)/git-daemon" --export-all --base-path="$KULPRIT_CACHE/demo" --listen="$gateway" &
    daemon=$!
    repositories=git://$gateway
}

take_down() {
    local hosts
    if [ -n "${current:-}" ]; then
        tail -n 30 "$current" >&2
        say "failed; all of it: $current"
    fi
    mapfile -t hosts < <(docker ps --all --quiet --filter "network=$network")
    if [ -n "${KEEP:-}" ]; then
        say "kept: ssh -i $work/key root@ADDRESS; docker exec -it $network-HOST bash"
        say "to remove: docker rm --force --volumes ${hosts[*]}; docker network rm $network;" \
            "${daemon:+kill $daemon;} ${store:+kill $store;} ${database:+kill -QUIT $database;} rm -r $work"
        return
    fi
    [ ${#hosts[@]} = 0 ] || docker rm --force --volumes "${hosts[@]}" >/dev/null || true
    docker network rm "$network" >/dev/null 2>&1 || true
    [ -z "${daemon:-}" ] || kill "$daemon" 2>/dev/null || true
    stop_services
    rm -rf "$work"
}
