# Configures and makes a kernel: /src read-only, /build the object tree, /kulprit the inputs.
# Its arguments are more arguments for make.
set -eu
cd /build

cc=gcc
version=$(ccache --version 2>/dev/null | sed -n '1s/^ccache version //p') || version=
case "$version" in
'' | 4.7 | 4.7.[012]) ;; # 4.7.0 to 4.7.2 refuse the kernel's -Wp,-MMD
*) cc='ccache gcc' ;;
esac

set -- make -C /src O=/build -j"$KULPRIT_JOBS" ARCH="$KULPRIT_ARCH" CC="$cc" HOSTCC="$cc" \
    KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' KBUILD_BUILD_USER=kulprit \
    KBUILD_BUILD_HOST=kulprit KBUILD_BUILD_VERSION=1 KCONFIG_NOTIMESTAMP=1 \
    KERNELRELEASE="$KULPRIT_RELEASE" LOCALVERSION= "$@"

# Whether .config still is what the inputs and the tree would give.
configured() {
    [ -f .config ] && [ "$(cat .kulprit-config-key 2>/dev/null)" = "$KULPRIT_CONFIG_KEY" ] || return 1
    changed=$(find /src \( -name 'Kconfig*' -o -path '/src/arch/*/configs/*' -o -path '/src/kernel/configs/*' \
        -o -path '/src/scripts/kconfig/*' -o -path '/src/scripts/*.sh' \) -newer .kulprit-configured -print -quit)
    [ -z "$changed" ] && [ "$(rules)" = "$(cat .kulprit-rules 2>/dev/null)" ]
}

# The top Makefile without the release it names, which no symbol depends on: release commits
# would otherwise have everything configured anew.
rules() {
    sed '/^\(VERSION\|PATCHLEVEL\|SUBLEVEL\|EXTRAVERSION\|NAME\) =/d' /src/Makefile | cksum
}

# The first line of a .config names the release, which no object depends on.
symbols() {
    sed '/^# Linux\//d' "$1"
}

configure() {
    rm -f .kulprit-config-key
    touch .kulprit-configured
    rm -f .kulprit-old-config
    [ ! -f .config ] || mv .config .kulprit-old-config
    if [ -n "$KULPRIT_CONFIG_TARGET" ]; then
        # Several targets may stand there, such as `defconfig kvm_guest.config`.
        for target in $KULPRIT_CONFIG_TARGET; do "$@" "$target"; done
    else
        cat /kulprit/base.config >.config
    fi
    cat /kulprit/fragments.config >>.config
    "$@" olddefconfig
    # kbuild goes by times: an equal configuration must not look new.
    if [ -f .kulprit-old-config ] && [ "$(symbols .kulprit-old-config)" = "$(symbols .config)" ]; then
        touch -r .kulprit-old-config .config
    fi
    rules >.kulprit-rules
    printf %s "$KULPRIT_CONFIG_KEY" >.kulprit-config-key
}

configured || configure "$@"
# Kernels that randomise structures take their seed from here if it is there already.
mkdir -p scripts/gcc-plugins
[ -f scripts/gcc-plugins/randomize_layout_seed.h ] ||
    echo 'const char *randstruct_seed = "0000000000000000000000000000000000000000000000000000000000000000";' \
        >scripts/gcc-plugins/randomize_layout_seed.h
exec "$@" vmlinux "$KULPRIT_IMAGE_TARGET"
