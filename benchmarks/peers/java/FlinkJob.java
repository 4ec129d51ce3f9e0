import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.serialization.SerializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.file.sink.FileSink;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.core.fs.Path;
import org.apache.flink.formats.parquet.ParquetWriterFactory;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.filesystem.OutputFileConfig;
import org.apache.flink.streaming.api.functions.sink.filesystem.bucketassigners.DateTimeBucketAssigner;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Flink in Java, in one process with two subtasks: Kafka source, one operator that scores in batches, and both sinks,
 * all in one chain, so that no record is serialised between them.
 *
 * Guarantee: exactly once to Kafka and to Parquet. Checkpoints come every second; predictions and files become visible
 * with the checkpoint that covers them. The operator has no state: it empties its batch before each barrier.
 *
 * Left out: dead letters, so that one malformed record restarts the job forever. The job ends at what the topic holds
 * at its start where a number of records is given; such an end is a checkpoint too.
 */
public final class FlinkJob {
    private static final int PARALLELISM = 2;
    private static final Duration CHECKPOINTS = Duration.ofSeconds(1);
    private static final int BATCH_RECORDS = 1_000;

    private FlinkJob() {}

    public static void main(String[] arguments) throws Exception {
        Options options = Options.of(arguments);
        Configuration settings = new Configuration();
        settings.setString("execution.checkpointing.dir", "file://" + options.get("scratch") + "/checkpoints");
        settings.setString("execution.checkpointing.storage", "filesystem");
        StreamExecutionEnvironment environment =
                StreamExecutionEnvironment.createLocalEnvironment(PARALLELISM, settings);
        environment.getConfig().enableObjectReuse();
        environment.enableCheckpointing(CHECKPOINTS.toMillis());
        SingleOutputStreamOperator<Scored> scored = environment
                .fromSource(source(options), WatermarkStrategy.noWatermarks(), "events")
                .transform("score", TypeInformation.of(Scored.class), new Scoring(options.modelFile()));
        scored.sinkTo(predictions(options));
        scored.sinkTo(files(options));
        environment.execute(options.get("name"));
    }

    private static KafkaSource<Event> source(Options options) {
        KafkaSourceBuilder<Event> builder = KafkaSource.<Event>builder()
                .setBootstrapServers(options.get("bootstrap"))
                .setGroupId(options.get("name"))
                .setTopics(options.get("events"))
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setDeserializer(new ReadEvents())
                .setProperty("isolation.level", "read_committed")
                .setProperty("max.poll.records", String.valueOf(4 * BATCH_RECORDS))
                .setProperty("max.partition.fetch.bytes", String.valueOf(4 << 20))
                .setProperty("receive.buffer.bytes", "-1");
        if (options.records() != Long.MAX_VALUE) {
            builder.setBounded(OffsetsInitializer.latest());
        }
        return builder.build();
    }

    private static KafkaSink<Scored> predictions(Options options) {
        return KafkaSink.<Scored>builder()
                .setBootstrapServers(options.get("bootstrap"))
                .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                .setTransactionalIdPrefix(options.get("name"))
                .setRecordSerializer(new WritePredictions(options.get("predictions")))
                .setProperty("transaction.timeout.ms", "60000")
                .setProperty("compression.type", "lz4")
                .setProperty("linger.ms", "5")
                .setProperty("batch.size", String.valueOf(256 << 10))
                .setProperty("buffer.memory", String.valueOf(64 << 20))
                .setProperty("send.buffer.bytes", "-1")
                .build();
    }

    private static FileSink<Scored> files(Options options) {
        String topic = options.get("events");
        return FileSink.forBulkFormat(
                        new Path("file://" + options.get("parquet")),
                        new ParquetWriterFactory<>(file -> ScoredRows.writer(file, topic)))
                .withBucketAssigner(new DateTimeBucketAssigner<>("'date='yyyy-MM-dd"))
                .withOutputFileConfig(OutputFileConfig.builder()
                        .withPartPrefix("part")
                        .withPartSuffix(".parquet")
                        .build())
                .build();
    }

    /** One record as it comes; `timestamp` is Kafka's, in milliseconds. */
    public record Event(int partition, long offset, long timestamp, byte[] key, byte[] value) {}

    /** One event with its score; `at` is when it was scored, in microseconds. */
    public record Scored(Event event, long id, float score, boolean flagged, long at) {}

    private static final class ReadEvents implements KafkaRecordDeserializationSchema<Event> {
        private static final long serialVersionUID = 1;

        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Event> out) {
            out.collect(new Event(
                    record.partition(), record.offset(), record.timestamp(), record.key(), record.value()));
        }

        @Override
        public TypeInformation<Event> getProducedType() {
            return TypeInformation.of(Event.class);
        }
    }

    /** Collects events into a batch, and scores it when it is full, at a barrier and at the end. */
    private static final class Scoring extends AbstractStreamOperator<Scored>
            implements OneInputStreamOperator<Event, Scored> {
        private static final long serialVersionUID = 1;

        private final String modelFile;
        private transient Model model;
        private transient EventReader reader;
        private transient List<Event> batch;
        private transient long[] ids;
        private transient StreamRecord<Scored> sent;

        Scoring(String modelFile) {
            this.modelFile = modelFile;
        }

        @Override
        public void open() throws Exception {
            super.open();
            model = new Model(modelFile, BATCH_RECORDS);
            reader = new EventReader();
            batch = new ArrayList<>(BATCH_RECORDS);
            ids = new long[BATCH_RECORDS];
            sent = new StreamRecord<>(null);
        }

        @Override
        public void processElement(StreamRecord<Event> element) throws Exception {
            Event event = element.getValue();
            ids[batch.size()] = reader.read(event.value(), model.features);
            batch.add(event);
            if (batch.size() == BATCH_RECORDS) {
                score();
            }
        }

        @Override
        public void prepareSnapshotPreBarrier(long checkpoint) throws Exception {
            score();
        }

        @Override
        public void finish() throws Exception {
            score();
            super.finish();
        }

        @Override
        public void close() throws Exception {
            if (model != null) {
                model.close();
            }
            super.close();
        }

        private void score() throws Exception {
            if (batch.isEmpty()) {
                return;
            }
            float[] scores = model.score(batch.size());
            long now = System.currentTimeMillis() * 1_000;
            for (int place = 0; place < scores.length; place++) {
                float score = scores[place];
                output.collect(sent.replace(
                        new Scored(batch.get(place), ids[place], score, score >= Options.THRESHOLD, now)));
            }
            batch.clear();
        }
    }

    private static final class WritePredictions implements KafkaRecordSerializationSchema<Scored> {
        private static final long serialVersionUID = 1;

        private final String topic;
        private transient PredictionWriter writer;

        WritePredictions(String topic) {
            this.topic = topic;
        }

        @Override
        public void open(SerializationSchema.InitializationContext context, KafkaSinkContext sink) {
            writer = new PredictionWriter(Options.MODEL_NAME, Options.MODEL_VERSION);
        }

        @Override
        public ProducerRecord<byte[], byte[]> serialize(Scored scored, KafkaSinkContext sink, Long timestamp) {
            Event event = scored.event();
            byte[] value =
                    writer.write(event.partition(), event.offset(), scored.id(), scored.score(), scored.flagged());
            return new ProducerRecord<>(topic, event.partition(), event.key(), value);
        }
    }
}
