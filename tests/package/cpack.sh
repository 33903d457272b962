#!/bin/sh
# Packs, unpacks elsewhere, and builds a user's project from what came out: cpack.sh TGZ|DEB CMAKE CC PKG_CONFIG BUILD OUT CONSUMER
set -eu
generator=$1 cmake=$2 cc=$3 pkg_config=$4 build=$5 out=$6 consumer=$7
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$out"
mkdir -p "$out/packed" "$out/unpacked" "$out/built"
cd "$out"
"$(dirname "$cmake")/cpack" --config "$build/CPackConfig.cmake" -G "$generator" -B "$out/packed" >cpack.log 2>&1 || { cat cpack.log; exit 1; }

case $generator in
TGZ)
    tar -xf packed/*.tar.gz -C unpacked --strip-components=1
    prefix=$out/unpacked
    ;;
DEB)
    dpkg-deb --extract packed/*.deb unpacked
    dpkg-deb --control packed/*.deb control
    prefix=$out/unpacked/usr
    soname=$(readelf --dynamic "$prefix"/lib*/libpvera.so | sed -n 's/.*SONAME.*\[libpvera\.so\.\(.*\)\]/\1/p')
    grep "^libpvera $soname pvera (>= [0-9.]*)" control/shlibs
    grep '^Depends:.*libc6 (>= 2' control/control
    grep '^Maintainer: [^<]* <[^@ ]*@[^@ ]*>$' control/control
    ;;
esac
sh "$here/docs.sh" "$prefix/share"
(cd packed && sha256sum --check --quiet ./*.sha256)

libdir=$(dirname "$prefix"/lib*/libpvera.so)
"$cmake" -S "$consumer" -B built -D CMAKE_C_COMPILER="$cc" -D CMAKE_PREFIX_PATH="$prefix" >configure.log
"$cmake" --build built
(cd built && "$(dirname "$cmake")/ctest" --output-on-failure)
grep -q "^pvera_DIR:PATH=$prefix/" built/CMakeCache.txt # and not another installed copy
for kind in shared static; do
    sh "$consumer/pkg-config.sh" "$kind" "$cc" "$pkg_config" "$libdir" "$out"
done
