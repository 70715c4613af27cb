SUMMARY = "Inference daemon for machines with accelerators"
DESCRIPTION = "Owns the accelerators of a board and runs models for every app on it: language models, \
short-clip video models and plain tensors, on ONNX Runtime, TFLite or tract."
SECTION = "utils"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE-MIT;md5=e7a6c5aeb7d76faa126834ed8d8a7508 \
                    file://LICENSE-APACHE;md5=86d3f3a95c324c9479bd8986968f4327"

# Where this tree is fetched from, set by the layer that uses the recipe: MOTE_URI and SRCREV.
MOTE_URI ?= "git:///nowhere/mote;protocol=file;branch=main"
SRC_URI = "${MOTE_URI}"
SRCREV ?= "${AUTOREV}"
S = "${WORKDIR}/git"

# The crates that Cargo.lock names: written by `bitbake -c update_crates mote`.
require ${BPN}-crates.inc

inherit cargo cargo-update-recipe-crates systemd useradd pkgconfig features_check python3-dir

REQUIRED_DISTRO_FEATURES = "systemd"

CARGO_BUILD_FLAGS += "-p moted -p mote-worker -p mote-cli -p mote-c"

# The command writes its own manual pages and completions, which takes one that runs on the builder:
# without it they are left out.
do_install() {
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/mote ${D}${bindir}/mote
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/moted ${D}${bindir}/moted
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/mote-worker ${D}/usr/libexec/mote/mote-worker
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/libmote.so ${D}${libdir}/libmote.so.1
    ln -s libmote.so.1 ${D}${libdir}/libmote.so
    install -D -m 0644 ${S}/proto/c/include/mote.h ${D}${includedir}/mote.h
    install -D -m 0644 ${S}/proto/wire/schema/mote.v1.proto ${D}${datadir}/mote/schema/mote.v1.proto
    install -d ${D}${libdir}/pkgconfig
    sed -e 's|@prefix@|${prefix}|g' -e 's|@libdir@|${libdir}|g' -e 's|@includedir@|${includedir}|g' \
        -e 's|@version@|${PV}|g' ${S}/proto/c/mote.pc.in > ${D}${libdir}/pkgconfig/mote.pc

    for unit in mote.socket mote.service; do
        install -D -m 0644 ${S}/systemd/system/$unit ${D}${systemd_system_unitdir}/$unit
        install -D -m 0644 ${S}/systemd/user/$unit ${D}${systemd_user_unitdir}/$unit
    done
    install -D -m 0644 ${S}/systemd/sysusers.d/mote.conf ${D}${nonarch_libdir}/sysusers.d/mote.conf
    install -D -m 0644 ${S}/systemd/tmpfiles.d/mote.conf ${D}${nonarch_libdir}/tmpfiles.d/mote.conf
    install -D -m 0644 ${S}/systemd/udev/49-mote-accelerators.rules \
        ${D}${nonarch_base_libdir}/udev/rules.d/49-mote-accelerators.rules
    install -D -m 0644 ${S}/systemd/etc/moted.env ${D}${sysconfdir}/mote/moted.env
    MOTE_ROOT=${D} MOTE_TOP=${S} sh ${S}/cross/dbus-files

    install -d ${D}${PYTHON_SITEPACKAGES_DIR}/mote
    install -m 0644 ${S}/proto/python/mote/*.py ${S}/proto/python/mote/schema_v1.binpb \
        ${S}/proto/python/mote/py.typed ${D}${PYTHON_SITEPACKAGES_DIR}/mote/
}

SYSTEMD_SERVICE:${PN} = "mote.socket mote.service"
USERADD_PACKAGES = "${PN}"
GROUPADD_PARAM:${PN} = "--system mote; --system render; --system video"
USERADD_PARAM:${PN} = "--system --gid mote --groups render,video --no-create-home \
    --home-dir /var/lib/mote --shell /sbin/nologin mote"

PACKAGES =+ "libmote python3-mote"
FILES:libmote = "${libdir}/libmote.so.1"
FILES:python3-mote = "${PYTHON_SITEPACKAGES_DIR}/mote"
RDEPENDS:python3-mote = "python3-core python3-numpy python3-protobuf"
FILES:${PN} += "/usr/libexec/mote ${systemd_user_unitdir} ${nonarch_libdir} ${nonarch_base_libdir}/udev \
    ${datadir}/dbus-1 ${datadir}/polkit-1"
FILES:${PN}-dev += "${datadir}/mote/schema"
CONFFILES:${PN} = "${sysconfdir}/mote/moted.env"
RRECOMMENDS:${PN} = "dbus polkit"
