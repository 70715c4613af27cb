# From staged trees to packages and the portable archive. Read by `package`.
# shellcheck shell=bash disable=SC2154

# The packages that hold the libraries that programs under a folder need, at the versions they need.
# From the programs themselves, so that it works for any machine's.
library_dependencies() {
  local file glibc=0 needed=''
  while read -r file; do
    readelf -h "$file" > /dev/null 2>&1 || continue
    glibc=$(printf '%s\n' "$glibc" "$(readelf -V "$file" | grep -oE 'GLIBC_[0-9.]+' | cut -d_ -f2)" |
      grep . | sort -V | tail -n 1)
    needed+=$(readelf -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\].*/ \1/p')
  done < <(find "$1" -type f \( -perm -u+x -o -name '*.so*' \) | sort)
  local name packages=()
  for name in $(tr ' ' '\n' <<< "$needed" | sort -u); do
    case "$name" in
      libc.so.6 | libm.so.6 | libdl.so.2 | libpthread.so.0 | librt.so.1 | ld-linux*) ;;
      libgcc_s.so.1) packages+=('libgcc-s1 (>= 3.3)') ;;
      *) die "which package holds $name?" ;;
    esac
  done
  local list="libc6 (>= $glibc)"
  for name in ${packages[@]+"${packages[@]}"}; do list+=", $name"; done
  printf '%s\n' "$list"
}

# Entries of daemon/CHANGELOG.md under their version, in the form of Debian's tools.
write_changelog() {
  printf 'mote (%s) unstable; urgency=medium\n\n' "$version"
  awk '/^- / { if (entry) print entry; entry = $0; next }
    /^  [^ ]/ { sub(/^ +/, " "); entry = entry $0; next }
    { if (entry) print entry; entry = "" }
    END { if (entry) print entry }' daemon/CHANGELOG.md |
    sed 's/^- //' | while read -r entry; do
    fold -s -w 74 <<< "$entry" | sed -e '1s/^/  * /' -e '2,$s/^/    /' -e 's/ *$//'
  done
  printf '\n -- %s  %s\n' "$maintainer" "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
}

make_deb() {
  local name=$1 root=$stage/$1 data=$cross/debian/$1 doc=$stage/$1/usr/share/doc/$1
  local file package_arch=$arch shlibs=''
  mkdir -p "$root/DEBIAN" "$doc"
  awk -v licence=LICENSE-MIT '/^@MIT@$/ { while ((getline line < licence) > 0) print line; next } { print }' \
    "$cross/debian/copyright" > "$doc/copyright"
  write_changelog | gzip -9n > "$doc/changelog.gz"
  if [ -e "$data/lintian-overrides" ]; then
    put "$data/lintian-overrides" "$root/usr/share/lintian/overrides/$name"
  fi
  grep -q '^Architecture: all' "$data/control" && package_arch=all
  grep -q '@SHLIBS@' "$data/control" && shlibs=$(library_dependencies "$root")
  local size
  size=$(du -k -s --apparent-size --exclude=DEBIAN "$root" | cut -f1)
  sed -e "s|@VERSION@|$version|g" -e "s|@ARCH@|$package_arch|g" -e "s|@MAINTAINER@|$maintainer|g" \
    -e "s|@SIZE@|$size|g" -e "s|@SHLIBS@|$shlibs|g" "$data/control" > "$root/DEBIAN/control"
  for file in conffiles shlibs triggers; do
    [ -e "$data/$file" ] && sed "s|@VERSION@|$version|g" "$data/$file" > "$root/DEBIAN/$file"
  done
  for file in preinst postinst prerm postrm; do
    [ -e "$data/$file" ] && install -m 755 "$data/$file" "$root/DEBIAN/$file"
  done
  (cd "$root" && find . -type f -not -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0r md5sum) \
    > "$root/DEBIAN/md5sums"
  find "$root" -type d -exec chmod 755 {} +
  local deb="$out/${name}_${version}_${package_arch}.deb"
  dpkg-deb --root-owner-group -Zxz "-z$level" --build "$root" "$deb" > /dev/null
  printf '%s\n' "$deb"
}

# What the packages mote and libmote1 hold, with a script that puts it in place.
make_archive() {
  local name="mote-$version-linux-$arch" part
  local root=$stage/$name
  mkdir -p "$root/tree"
  for part in mote libmote1 libmote-dev python3-mote; do
    [ -d "$stage/$part" ] && (cd "$stage/$part" && tar -c --exclude=./DEBIAN --exclude=./usr/share/doc \
      --exclude=./usr/share/lintian .) | tar -x -C "$root/tree"
  done
  put "$stage/third-party.txt.gz" "$root/third-party.txt.gz"
  put LICENSE-MIT "$root/LICENSE-MIT"
  put LICENSE-APACHE "$root/LICENSE-APACHE"
  put "$cross/portable/README" "$root/README"
  install -m 755 "$cross/portable/install" "$cross/portable/uninstall" "$root/"
  tar -c -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner \
    --mtime="@$SOURCE_DATE_EPOCH" "$name" | xz -T0 "-$level" > "$out/$name.tar.xz"
  printf '%s\n' "$out/$name.tar.xz"
}
