# Which file goes where: one function per package. Read by `package`.
# shellcheck shell=bash disable=SC2154

# A program or library, for the right machine, without symbols.
put_binary() {
  local from=$1 to=$2 mode=$3 strip
  readelf -h "$from" | grep -q "Machine:.*$machine" || die "$from is no program for $arch"
  install -D -m "$mode" "$from" "$to"
  strip="$triplet-strip"
  command -v "$strip" > /dev/null || strip='strip'
  "$strip" --strip-unneeded --remove-section=.comment "$to" 2> /dev/null ||
    die "$strip cannot strip a program for $arch (package binutils-$(tr _ - <<< "$triplet"))"
}

put() { install -D -m 644 "$1" "$2"; }

stage_mote() {
  local root=$1 file
  put_binary "$programs/mote" "$root/usr/bin/mote" 755
  put_binary "$programs/moted" "$root/usr/bin/moted" 755
  put_binary "$programs/mote-worker" "$root/usr/libexec/mote/mote-worker" 755
  for file in mote.socket mote.service; do
    put "systemd/system/$file" "$root/usr/lib/systemd/system/$file"
    put "systemd/user/$file" "$root/usr/lib/systemd/user/$file"
  done
  put systemd/sysusers.d/mote.conf "$root/usr/lib/sysusers.d/mote.conf"
  put systemd/tmpfiles.d/mote.conf "$root/usr/lib/tmpfiles.d/mote.conf"
  put systemd/udev/49-mote-accelerators.rules "$root/usr/lib/udev/rules.d/49-mote-accelerators.rules"
  put systemd/etc/moted.env "$root/etc/mote/moted.env"
  put systemd/examples/cpu-only.conf "$root/usr/share/doc/mote/examples/cpu-only.conf"
  MOTE_ROOT=$root MOTE_TOP=$top sh "$cross/dbus-files"
  stage_manual "$root"
  stage_completions "$root"
  "$cross/licences" "$target" | gzip -9n > "$stage/third-party.txt.gz"
  put "$stage/third-party.txt.gz" "$root/usr/share/doc/mote/third-party.txt.gz"
}

stage_manual() {
  local root=$1 page option
  # A page that leaves out an option is a fault of this tree, found here.
  if [ "$arch" = "$(dpkg --print-architecture)" ]; then
    "$programs/moted" --help | grep -oE -- '--[a-z-]+' | sort -u | while read -r option; do
      grep -qF -- "${option//-/\\-}" "$cross/man/moted.8" || die "cross/man/moted.8 does not tell of $option"
    done
  fi
  "$mote" manual "$stage/man"
  mkdir -p "$root/usr/share/man/man1" "$root/usr/share/man/man8"
  for page in "$stage"/man/*.1; do
    gzip -9n < "$page" > "$root/usr/share/man/man1/${page##*/}.gz"
  done
  for page in "$cross"/man/*.8; do
    gzip -9n < "$page" > "$root/usr/share/man/man8/${page##*/}.gz"
  done
}

stage_completions() {
  local root=$1/usr/share
  mkdir -p "$root/bash-completion/completions" "$root/zsh/vendor-completions" \
    "$root/fish/vendor_completions.d"
  "$mote" completions bash > "$root/bash-completion/completions/mote"
  "$mote" completions zsh > "$root/zsh/vendor-completions/_mote"
  "$mote" completions fish > "$root/fish/vendor_completions.d/mote.fish"
}

stage_library() {
  local root=$1 soname
  soname=$(readelf -d "$programs/libmote.so" | sed -n 's/.*SONAME.*\[\(.*\)\].*/\1/p')
  [ "$soname" = libmote.so.1 ] || die "the SONAME of libmote.so is '$soname', not libmote.so.1"
  put_binary "$programs/libmote.so" "$root/usr/lib/$triplet/libmote.so.1" 644
}

stage_development() {
  local root=$1
  mkdir -p "$root/usr/lib/$triplet/pkgconfig"
  ln -s libmote.so.1 "$root/usr/lib/$triplet/libmote.so"
  put proto/c/include/mote.h "$root/usr/include/mote.h"
  sed -e "s|@prefix@|/usr|g" -e "s|@libdir@|\${prefix}/lib/$triplet|g" \
    -e "s|@includedir@|\${prefix}/include|g" -e "s|@version@|$version|gI" proto/c/mote.pc.in \
    > "$root/usr/lib/$triplet/pkgconfig/mote.pc"
  put proto/wire/schema/mote.v1.proto "$root/usr/share/mote/schema/mote.v1.proto"
}

stage_python() {
  local root=$1/usr/lib/python3/dist-packages file
  for file in proto/python/mote/*; do
    [ -f "$file" ] && put "$file" "$root/mote/${file##*/}"
  done
  # What pip and importlib.metadata read.
  mkdir -p "$root/mote_client-$version.dist-info"
  printf 'Metadata-Version: 2.1\nName: mote-client\nVersion: %s\n' "$version" \
    > "$root/mote_client-$version.dist-info/METADATA"
  printf 'dpkg\n' > "$root/mote_client-$version.dist-info/INSTALLER"
}
