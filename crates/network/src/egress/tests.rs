//! The tables as the kernel has them, in a network namespace of the test's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::gate::{LearnError, MOST_LEARNT};
use super::*;

const TABLE: &str = "t-egress";
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Runs a test on a thread in a namespace of its own.
fn apart(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let inside = || {
            hull_sys::netns::unshare_network().expect("a namespace");
            test();
        };
        scope.spawn(inside).join().expect("a thread");
    });
}

fn guarded(id: &str, address: Ipv4Addr, allow: &[&str]) -> Guarded {
    let allow: Vec<String> = allow.iter().map(|text| (*text).to_owned()).collect();
    let policy = EgressPolicy::new("deny", &allow, &["10.9.0.0/16:25".to_owned()]);
    let reach = |address: IpAddr, prefix, gateway| Reach {
        address,
        prefix,
        gateway,
        named: true,
    };
    let six = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last);
    Guarded {
        id: id.to_owned(),
        policy: policy.expect("a policy").expect("a restriction"),
        sides: vec![Side {
            veth: format!("v-{id}"),
            mac: MacAddress::from_ipv4(address),
            bridge_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            known_by: address,
            reach: vec![
                reach(address.into(), 24, Ipv4Addr::new(10, 0, 0, 1).into()),
                reach(six(address.octets()[3].into()).into(), 64, six(1).into()),
            ],
        }],
    }
}

fn tables() -> Vec<String> {
    let mut socket = nft::open().expect("a socket");
    let mut all = nft::tables(&mut socket, INET).expect("tables");
    all.extend(nft::tables(&mut socket, BRIDGE).expect("tables"));
    all
}

fn learnt(set: &str) -> Vec<(IpAddr, Duration)> {
    wire::elements(&mut nft::open().expect("a socket"), TABLE, set).expect("elements")
}

fn numbered(number: usize) -> IpAddr {
    let bits = u32::try_from(number).expect("a number") + (198 << 24);
    Ipv4Addr::from_bits(bits).into()
}

#[test]
fn tables_come_with_the_first_policy_and_go_with_the_last() {
    apart(|| {
        let egress = Egress::open(TABLE, Gates::default()).expect("a socket");
        egress.take_over(Vec::new()).expect("nothing to do");
        assert!(tables().is_empty());
        let rules = ["a.example:1-9/udp", "192.0.2.0/24", "*:7", "2001:db8::/32"];
        let other = Ipv4Addr::new(10, 0, 0, 3);
        egress
            .set(guarded("one", CLIENT, &rules), false)
            .expect("set");
        egress.set(guarded("two", other, &[]), false).expect("set");
        assert_eq!(tables(), [TABLE, TABLE]);
        // Again, with other rules, and after somebody has removed everything.
        egress
            .set(guarded("one", CLIENT, &["b.example"]), false)
            .expect("set");
        egress.close("one", "v-new").expect("close");
        let mut flush = Changes::new(TABLE);
        flush.delete_table(INET);
        flush.delete_table(BRIDGE);
        flush
            .commit(&mut nft::open().expect("a socket"))
            .expect("flush");
        egress
            .set(guarded("one", CLIENT, &["c.example"]), false)
            .expect("set");
        assert_eq!(tables(), [TABLE, TABLE]);
        assert!(egress.close("three", "v").is_err());
        egress.remove("one").expect("remove");
        egress.remove("one").expect("there is none: no error");
        assert_eq!((tables().len(), egress.guarded()), (2, 1));
        // An address that became another's belongs to nobody else.
        egress
            .set(guarded("three", CLIENT, &[]), false)
            .expect("set");
        egress.remove("two").expect("remove");
        egress.remove("three").expect("remove");
        assert!(tables().is_empty());
    });
}

#[test]
fn addresses_are_learnt_for_their_rule_renewed_and_bounded() {
    apart(|| {
        let gates = Gates::default();
        let egress = Egress::open(TABLE, gates.clone()).expect("a socket");
        let rules = ["10.0.0.0/8", "*.example:443", "a.example"];
        egress
            .set(guarded("one", CLIENT, &rules), false)
            .expect("set");
        let gate = gates.of(CLIENT.into()).expect("a gate");
        assert!(gates.of(Ipv4Addr::LOCALHOST.into()).is_none());
        let six: IpAddr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9).into();
        let four = numbered(1);
        gate.learn("a.example", &[(four, 10), (six, 10)])
            .expect("learn");
        gate.learn("b.example", &[(numbered(2), 10)])
            .expect("learn");
        gate.learn("example", &[(numbered(3), 10)])
            .expect("nothing");
        let names = |set: &str| {
            let mut all: Vec<_> = learnt(set)
                .into_iter()
                .map(|(address, _)| address)
                .collect();
            all.sort();
            all
        };
        assert_eq!(names("n1v4-one"), [four, numbered(2)]);
        assert_eq!(names("n2v4-one"), [four]);
        assert_eq!(
            (names("n1v6-one"), names("n2v6-one")),
            (vec![six], vec![six])
        );
        let left = |address| {
            let all = learnt("n2v4-one").into_iter();
            all.filter(|(other, _)| *other == address)
                .map(|(_, left)| left.as_secs())
                .next()
        };
        // For a record that ends sooner nothing changes, for one that ends later the time does.
        gate.learn("a.example", &[(four, 5)]).expect("learn");
        assert!(left(four).is_some_and(|seconds| seconds <= 70));
        gate.learn("a.example", &[(four, 600)]).expect("learn");
        assert!(left(four).is_some_and(|seconds| (600..=660).contains(&seconds)));
        // As much as nobody keeps.
        gate.learn("a.example", &[(four, u32::MAX)]).expect("learn");
        assert!(left(four).is_some_and(|seconds| seconds <= 605_000));
        // One whose time was over for the kernel a moment before it is renewed.
        gate.learn("a.example", &[(numbered(5), 10)])
            .expect("learn");
        let mut changes = Changes::new(TABLE);
        changes.delete_keys(INET, "n2v4-one", &[octets(numbered(5))]);
        changes
            .commit(&mut nft::open().expect("a socket"))
            .expect("delete");
        let gone = [(numbered(5), 600), (numbered(4), 9)];
        gate.learn("a.example", &gone).expect("learn");
        for number in [4, 5] {
            assert!(names("n2v4-one").contains(&numbered(number)));
        }

        for near in [
            "127.0.0.1",
            "169.254.169.254",
            "10.0.0.1",
            "fe80::1",
            "::1",
            "0.0.0.0",
        ] {
            let near: IpAddr = near.parse().expect("an address");
            gate.learn("c.example", &[(near, 9)]).expect("nothing");
            assert!(!names("n1v4-one").contains(&near), "{near}");
            assert!(!names("n1v6-one").contains(&near), "{near}");
        }
        // Another daemon finds what this one has learnt.
        let next = Gates::default();
        let egress = Egress::open(TABLE, next.clone()).expect("a socket");
        egress
            .take_over(vec![guarded("one", CLIENT, &rules)])
            .expect("take over");
        assert!(names("n1v4-one").contains(&numbered(2)));
        assert!(left(four).is_some_and(|seconds| seconds > 1000));
        // Another policy keeps what its rules have in common with the old one.
        egress
            .set(guarded("one", CLIENT, &["a.example"]), false)
            .expect("set");
        assert!(names("n0v4-one").contains(&four));

        let gate = next.of(CLIENT.into()).expect("a gate");
        let many: Vec<_> = (100..=100 + MOST_LEARNT)
            .map(|n| (numbered(n), 60))
            .collect();
        let full = gate.learn("a.example", &many);
        assert!(matches!(full, Err(LearnError::Full)), "{full:?}");
        gate.learn("a.example", &many[..2000]).expect("learn");
        assert!(names("n0v4-one").len() >= 2000);
        let six = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
        assert_eq!(next.known_by(six.into()), Some(CLIENT));
        egress.remove("one").expect("remove");
        assert!(gate.learn("a.example", &[(numbered(9), 60)]).is_err());
        assert!(next.of(CLIENT.into()).is_none());
    });
}
