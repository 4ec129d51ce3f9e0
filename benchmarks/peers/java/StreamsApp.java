import ai.onnxruntime.OrtException;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;

/**
 * Kafka Streams with one processor, which scores record by record, as its tasks get them. Each task has a session of its
 * own, and each thread works on one task at a time.
 *
 * Guarantee: exactly once to Kafka (exactly_once_v2, commits at its default of 100 ms).
 *
 * Left out: Parquet; the same partition number for a prediction as for its event, which is left to the key; dead
 * letters, so that one malformed record stops it for good.
 */
public final class StreamsApp {
    private StreamsApp() {}

    public static void main(String[] arguments) throws InterruptedException {
        Options options = Options.of(arguments);
        AtomicLong left = new AtomicLong(options.records());
        CountDownLatch ended = new CountDownLatch(1);
        Topology topology = new Topology();
        topology.addSource("events", options.get("events"))
                .addProcessor("score", () -> new Scoring(options.modelFile(), left, ended), "events")
                .addSink("predictions", options.get("predictions"), "score");
        KafkaStreams streams = new KafkaStreams(topology, settings(options));
        AtomicLong failures = new AtomicLong();
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            failures.incrementAndGet();
            ended.countDown();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
        ended.await();
        // Commits what is scored.
        streams.close();
        System.exit(failures.get() == 0 ? 0 : 1);
    }

    private static Properties settings(Options options) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, options.get("name"));
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.get("bootstrap"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, options.get("scratch") + "/state");
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, options.get("threads"));
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        settings.put(StreamsConfig.consumerPrefix("max.partition.fetch.bytes"), 4 << 20);
        settings.put(StreamsConfig.consumerPrefix("receive.buffer.bytes"), -1);
        settings.put(StreamsConfig.producerPrefix("compression.type"), "lz4");
        settings.put(StreamsConfig.producerPrefix("linger.ms"), 5);
        settings.put(StreamsConfig.producerPrefix("batch.size"), 256 << 10);
        return settings;
    }

    private static final class Scoring implements Processor<byte[], byte[], byte[], byte[]> {
        private final String modelFile;
        private final AtomicLong left;
        private final CountDownLatch ended;
        private final EventReader reader = new EventReader();
        private final PredictionWriter writer = new PredictionWriter("ffnn", Options.MODEL_VERSION);
        private ProcessorContext<byte[], byte[]> context;
        private Model model;

        Scoring(String modelFile, AtomicLong left, CountDownLatch ended) {
            this.modelFile = modelFile;
            this.left = left;
            this.ended = ended;
        }

        @Override
        public void init(ProcessorContext<byte[], byte[]> context) {
            this.context = context;
            try {
                model = new Model(modelFile, 1);
            } catch (OrtException error) {
                throw new IllegalStateException(error);
            }
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            try {
                RecordMetadata source = context.recordMetadata().orElseThrow();
                long id = reader.read(record.value(), model.features);
                byte[] value = writer.write(source.partition(), source.offset(), id, model.score(1));
                context.forward(record.withValue(value));
            } catch (OrtException error) {
                throw new IllegalStateException(error);
            }
            if (left.decrementAndGet() == 0) {
                ended.countDown();
            }
        }

        @Override
        public void close() {
            try {
                model.close();
            } catch (OrtException error) {
                throw new IllegalStateException(error);
            }
        }
    }
}
