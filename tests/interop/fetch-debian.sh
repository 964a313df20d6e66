#!/bin/sh
# Brings a program from Debian's packages into a folder of its own; nothing is installed on the host. The release
# signature is checked with Debian's keyring.
#
#   fetch-debian.sh DIR                 leaves DIR/bin/bitcoind and DIR/bin/bitcoin-cli (Bitcoin Knots, which is
#                                       Core-compatible on regtest)
#   fetch-debian.sh DIR microsocks      leaves DIR/bin/microsocks, a SOCKS5 server
#   fetch-debian.sh DIR miniupnpd       leaves DIR/bin/miniupnpd, a gateway with UPnP, PCP and NAT-PMP, and DIR/bin/nft
#   fetch-debian.sh DIR turnserver      leaves DIR/bin/turnserver (coturn), a STUN server
#   fetch-debian.sh DIR nginx           leaves DIR/bin/nginx, a web server
#
# The mirror is the one that the host uses already (APT_SOURCES names its deb822 file; MIRROR overrides).
set -eu

dir=${1:?usage: fetch-debian.sh DIR [PROGRAM]}
program=${2:-bitcoind}
suite=${SUITE:-sid}
keyring=${KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
sources=${APT_SOURCES:-/etc/apt/sources.list.d/debian.sources}
case $program in
microsocks) packages="microsocks libc6" tools=microsocks ;;
miniupnpd) tools="miniupnpd nft" packages="miniupnpd-nftables nftables libnftables1 libnftnl11 libmnl0 libc6 libgmp10
 libjansson4 libxtables12 libedit2 libbsd0 libmd0 libtinfo6" ;;
turnserver) tools=turnserver packages="coturn libc6 libevent-core-2.1-7t64 libevent-extra-2.1-7t64
 libevent-openssl-2.1-7t64 libevent-pthreads-2.1-7t64 libhiredis1.1.0 libmariadb3 libpq5 libsqlite3-0 libssl3t64
 libsystemd0 libgssapi-krb5-2 libk5crypto3 libkrb5-3 libkrb5support0 libcom-err2 libkeyutils1 libldap2 libsasl2-2
 zlib1g libzstd1" ;;
nginx) packages="nginx libc6 libcrypt1 libpcre2-8-0 libssl3t64 zlib1g libzstd1" tools=nginx ;;
bitcoind) tools="bitcoind bitcoin-cli" packages="bitcoin-knots libc6 libgcc-s1 libstdc++6 zlib1g libzstd1 libssl3t64
 libevent-core-2.1-7t64 libevent-extra-2.1-7t64 libevent-pthreads-2.1-7t64
 libsqlite3-0 libzmq5 libbsd0 libmd0 libsodium26 libpgm-5.3-0t64 libnorm1t64 libprotobuf-c1
 libgssapi-krb5-2 libk5crypto3 libkrb5-3 libkrb5support0 libcom-err2 libkeyutils1" ;;
*) echo "unknown program $program" >&2; exit 1 ;;
esac

command -v apt-get >/dev/null && command -v dpkg >/dev/null || { echo "needs apt-get and dpkg" >&2; exit 1; }
mirror=${MIRROR:-$(sed -n 's/^URIs:[[:space:]]*\([^[:space:]]*\).*/\1/p' "$sources" | head -n 1)}
[ -n "$mirror" ] || { echo "no mirror in $sources" >&2; exit 1; }

mkdir -p "$dir/apt/lists/partial" "$dir/apt/archives/partial" "$dir/debs"
dir=$(cd "$dir" && pwd)
printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$mirror" "$suite" > "$dir/apt/sources.list"
apt() {
    apt-get -q -o Dir::Etc::sourcelist="$dir/apt/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::Lists="$dir/apt/lists" -o Dir::Cache="$dir/apt" -o Dir::Cache::archives="$dir/apt/archives" \
        -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false "$@"
}
quietly() { "$@" > "$dir/log" 2>&1 || { tail -n 20 "$dir/log" >&2; exit 1; }; }

quietly apt -o APT::Update::Error-Mode=any update
# shellcheck disable=SC2086
( cd "$dir/debs" && rm -f ./*.deb && quietly apt download $packages )
rm -rf "$dir/tree" && mkdir -p "$dir/tree" "$dir/bin"
for deb in "$dir"/debs/*.deb; do dpkg -x "$deb" "$dir/tree"; done

loader=$(find "$dir/tree" -name 'ld-linux-*.so.*' | head -n 1)
[ -n "$loader" ] || { echo "no dynamic loader among the packages" >&2; exit 1; }
for tool in $tools; do
    path=$(find "$dir/tree/usr/bin" "$dir/tree/usr/sbin" -name "$tool" 2>/dev/null | head -n 1)
    printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' \
        "$loader" "${loader%/*}" "$path" > "$dir/bin/$tool"
    chmod +x "$dir/bin/$tool"
done
[ "$program" != bitcoind ] || "$dir/bin/bitcoind" -version | head -n 1
