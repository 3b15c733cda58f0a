#!/bin/sh
# Writes src/table/*.rs, the system call numbers of each architecture, out of the kernel's own
# header constants as the linux-raw-sys crate carries them.
# Usage: tools/syscall-tables.sh PATH/TO/linux-raw-sys-VERSION   (run in crates/seccomp)
set -eu
source=${1:?the unpacked linux-raw-sys crate}
release=$(awk '/LINUX_VERSION_MAJOR/ {m=$6} /LINUX_VERSION_PATCHLEVEL/ {p=$6} END {gsub(";","",m); gsub(";","",p); print m "." p}' "$source/src/x86_64/general.rs")

# table NAME CRATE_ARCH TITLE BASE
# BASE is subtracted: x32 numbers are stored without the bit that marks them.
table() {
	out=src/table/$1.rs
	{
		echo "//! System call numbers of $3, Linux $release; written by tools/syscall-tables.sh."
		echo
		echo "/// Names with their numbers, in the order of the names."
		echo "pub(crate) const TABLE: &[(&str, u32)] = &["
		{
			sed -n 's/^pub const __NR_\([a-z0-9_]*\): u32 = \([0-9]*\);$/\1 \2/p' "$source/src/$2/general.rs" | grep -v '^syscalls '
			if [ "$1" = arm ]; then
				# ARM's private calls, and libseccomp's second name for sync_file_range2.
				printf '%s\n' 'breakpoint 983041' 'cacheflush 983042' 'usr26 983043' 'usr32 983044' \
					'set_tls 983045' 'get_tls 983046' 'arm_sync_file_range 341'
			fi
		} | LC_ALL=C sort -u -k1,1 | awk -v base="$4" '{ printf "    (\"%s\", %d),\n", $1, $2 - base }'
		echo "];"
	} >"$out"
}

table x86_64 x86_64 x86_64 0
table x86 x86 i386 0
table x32 x32 "x32 (without the bit that marks them)" 1073741824
table aarch64 aarch64 aarch64 0
table arm arm "arm (EABI)" 0
