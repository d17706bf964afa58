# make demo: see it work.  make test: check everything.  make bench: compare with keepalived.
# make bench-gate: what the packet gates cost packets and renewals.  make bench-vrrp: 255 virtual routers on one node, and decoding.  make trials: stop, kill, freeze and starve owners, and a minute beside keepalived.
# make test-kernels: the kernel fence on Debian's 5.10, 6.1 and 6.12, emulated; ARGS="6.1" takes one.
# All install the Debian packages that they need. ARGS="..." hands options to the demo or the bench, whose
# standard output is all that comes out there: make itself prints nothing.
TARGET  := $(or $(CARGO_TARGET_DIR),target)
BUOY    := $(TARGET)/release/buoy
PREFIX  ?= /usr
DESTDIR ?=

# A plain `su` leaves these out; ip, nginx and keepalived live there.
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: demo test test-kernels bench bench-gate bench-vrrp trials release install

demo: release
	@scripts/packages.sh nginx:nginx-light ip:iproute2 curl:curl
	@$(BUOY) lab demo $(ARGS)

test:
	@scripts/test.sh

test-kernels:
	@scripts/test-kernels.sh $(ARGS)

bench: release
	@scripts/packages.sh nginx:nginx-light keepalived:keepalived ip:iproute2
	@$(BUOY) lab bench $(ARGS)

bench-gate:
	@scripts/packages.sh cc:gcc /usr/include/stdlib.h:libc6-dev ip:iproute2 iperf3:iperf3
	@cargo bench -p buoy-fence --bench gate -- $(ARGS)

bench-vrrp:
	@scripts/packages.sh cc:gcc /usr/include/stdlib.h:libc6-dev nginx:nginx-light keepalived:keepalived ip:iproute2 tshark:tshark
	@cargo test --profile bench -p buoy --test cluster -- vrrp_load:: --ignored --nocapture
	@cargo bench -p buoy-vrrp-compat

trials:
	@scripts/packages.sh cc:gcc /usr/include/stdlib.h:libc6-dev nginx:nginx-light keepalived:keepalived ip:iproute2
	@BUOY_TRIALS=30 cargo test -p buoy --test cluster -- trials:: --nocapture
	@cargo test -p buoy --test cluster -- vrrp::beside:: --ignored --nocapture

release:
	@scripts/packages.sh cc:gcc /usr/include/stdlib.h:libc6-dev
	@cargo build --release --bin buoy

install: release
	install -D -m 755 $(BUOY) $(DESTDIR)$(PREFIX)/bin/buoy
	install -D -m 644 packaging/buoy.service $(DESTDIR)$(PREFIX)/lib/systemd/system/buoy.service
	install -d -m 755 $(DESTDIR)/etc/buoy
