//! The default gateway of this machine: on Linux from `/proc/net/route` and `/proc/net/ipv6_route`, elsewhere not known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of a routing table that are read: a machine with more routes has somebody who knows its address.
#[cfg(target_os = "linux")]
const MOST: u64 = 1 << 20;

/// The default gateway for the family, with this port.
pub(super) fn default_gateway(v6: bool, port: u16) -> Option<SocketAddr> {
    #[cfg(target_os = "linux")]
    {
        use std::io::Read;
        let path = if v6 { "/proc/net/ipv6_route" } else { "/proc/net/route" };
        let mut table = String::new();
        std::fs::File::open(path).ok()?.take(MOST).read_to_string(&mut table).ok()?;
        if !v6 {
            return gateway_v4(&table).map(|ip| SocketAddr::new(IpAddr::V4(ip), port));
        }
        let (ip, device) = gateway_v6(&table)?;
        // A gateway's address is usually of the link, and means something with its interface only.
        let index = std::fs::read_to_string(format!("/sys/class/net/{device}/ifindex")).ok()?;
        let scope = if ip.is_unicast_link_local() { index.trim().parse().ok()? } else { 0 };
        Some(SocketAddrV6::new(ip, port, 0, scope).into())
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (v6, port);
        None
    }
}

/// A route that is up and has a gateway (`RTF_UP`, `RTF_GATEWAY` of Linux's route.h).
const FLAGS: u32 = 3;

/// Columns: interface, destination, gateway, flags, …, 6: metric, mask; numbers in hex, addresses in the machine's order.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "Linux has these tables"))]
fn gateway_v4(table: &str) -> Option<Ipv4Addr> {
    let route = |line: &str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let hex = |at: usize| u32::from_str_radix(columns.get(at)?, 16).ok();
        let is_default = hex(1)? == 0 && hex(7)? == 0 && hex(3)? & FLAGS == FLAGS;
        let metric: u32 = columns.get(6)?.parse().ok()?;
        is_default.then_some((metric, Ipv4Addr::from(hex(2)?.to_ne_bytes())))
    };
    let routes = table.lines().filter_map(route).filter(|(_, ip)| !ip.is_unspecified());
    routes.min_by_key(|(metric, _)| *metric).map(|(_, ip)| ip)
}

/// Columns: destination, its length, source, its length, next hop, metric, two counts, flags, interface; all in hex.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "Linux has these tables"))]
fn gateway_v6(table: &str) -> Option<(Ipv6Addr, &str)> {
    let route = |line| {
        let columns: Vec<&str> = str::split_ascii_whitespace(line).collect();
        let hex = |at: usize| u32::from_str_radix(columns.get(at)?, 16).ok();
        let address = |at: usize| Some(Ipv6Addr::from_bits(u128::from_str_radix(columns.get(at)?, 16).ok()?));
        let is_default = address(0)?.is_unspecified() && hex(1)? == 0 && hex(3)? == 0;
        let has_gateway = hex(8)? & FLAGS == FLAGS;
        // The name becomes part of a path.
        let device = columns.get(9).copied().filter(|name| !name.contains(['/', '.']))?;
        (is_default && has_gateway).then_some((hex(5)?, address(4)?, device))
    };
    let routes = table.lines().filter_map(route).filter(|(_, ip, _)| !ip.is_unspecified());
    routes.min_by_key(|(metric, ..)| *metric).map(|(_, ip, device)| (ip, device))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[cfg(target_endian = "little")]
    const V4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t50\t00000000\t0\t0\t0
eth0\t0002A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
";
    const V6: &str = "\
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
20010db8000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    #[cfg(target_endian = "little")]
    #[test]
    fn the_gateway_with_the_least_metric_is_found() {
        assert_eq!(gateway_v4(V4), Some(Ipv4Addr::new(192, 168, 2, 1)));
        assert_eq!(gateway_v4(V4.lines().next().unwrap()), None);
    }

    #[test]
    fn the_next_hop_of_ipv6_comes_with_its_interface() {
        assert_eq!(gateway_v6(V6), Some(("fe80::1".parse().unwrap(), "eth0")));
        assert_eq!(gateway_v6(V6.lines().nth(1).unwrap()), None);
        assert_eq!(gateway_v6(&V6.replace("eth0", "../x")), None);
    }

    proptest! {
        #[test]
        fn no_table_panics(table in "([0-9a-f]{0,33}[ \t]{0,2}){0,12}\n?") {
            let _ = (gateway_v4(&table), gateway_v6(&table));
        }
    }
}
